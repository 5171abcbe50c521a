"""Reading a text log: a table between other lines, as programs printed it to a terminal and to a file alike.

Anything may stand between the rows: warnings, progress bars, colour, the header again. So a line that is no whole row
is passed over, and what tells that a row was lost is the next row's step. From there on nothing is read.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from projected_grpo.results.alignment import first_out_of_line
from projected_grpo.results.errors import UnknownFormatError, UnreadableLogError
from projected_grpo.results.heading import (
    Heading,
    check_said,
    goes_on,
    heading_of,
    in_arguments,
    in_brackets,
)
from projected_grpo.results.layouts import DEPLOYED, KNOWN, Layout, expected, of_columns, with_declared
from projected_grpo.results.rows import table
from projected_grpo.results.run import LoggedRun

_COLOUR = re.compile(r"\x1b\[[0-9;:?]*[A-DGHJKfhlmsu]|\x1b[()][0-9AB]|\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)")
# A row that was written behind a progress bar, on the same line, and a progress bar behind a row.
_AFTER_BAR = re.compile(r"(?![A-Z] ).*[^A-Za-z]I ( *(?:step |preset=|\d+ ).*)")
_BAR_BEHIND = re.compile(r" +(?:[A-Za-z][^ |]*: *)?\d+(?:%\||it \[).*")
_METRIC = re.compile("hack_s=([0-9]+)/([0-9]+) ")
FEWEST = 10  # cells of what may be a row; a sentence that begins with a number has fewer, or a word among them
_BARS = ("%|", "it [", "s/it]")
_STEP = re.compile("[0-9]{1,9}")
_MARKS = str.maketrans("", "", "↑↓?")


@dataclass
class _Read:
    """What was found so far."""

    path: Path
    heading: Heading | None = None
    layout: Layout | None = None
    header: str = ""  # as it stands there
    rows: list[list[str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)  # the rows as they stand there
    numbers: list[int] = field(default_factory=list)  # of the lines that the rows stand in
    suspect: int | None = None  # a line that begins like the row that is due, and is none
    problem: str = ""
    headless: bool = False  # something like a row stands before any header
    said: list[tuple[int, dict[str, str]]] = field(default_factory=list)  # of the preset line's facts by other lines
    metric: tuple[int, int, int] | None = None  # of the last row, a line says again: its number, and the fraction


def read_text(path: Path, data: bytes) -> LoggedRun:
    """One run from a text log.

    Returns:
        The run; where something is lost or damaged, the rows before it, marked incomplete.

    Raises:
        UnknownFormatError: its columns are of no known format.
        UnreadableLogError: it does not say which run it is of, or of two.
    """
    found = _Read(path)
    for number, message in _messages(data):
        _take(found, number, message)
    if found.heading is not None:
        check_said(path, found.heading, found.said)
    if found.layout is None and found.heading is not None and not found.headless:
        return _not_begun(path, found.heading)
    if found.layout is None:
        raise UnknownFormatError(
            f"{path} has no header of a table, which a text log needs (one of {expected()}), and is no JSONL log "
            "either; leave it out."
        )
    if found.heading is None:
        raise UnreadableLogError(
            f"{path} has no whole preset line (I preset=... arm=... seed=... steps=...), so what run it is of is not "
            "known; leave it out."
        )
    return _run(found, found.heading, found.layout)


def _not_begun(path: Path, heading: Heading) -> LoggedRun:
    """A run that was killed before it came to its table."""
    nothing = pl.DataFrame(schema={"step": pl.Int64()})
    return LoggedRun(
        source=path, format="text", intervention=heading.intervention, seed=heading.seed, settings=heading.settings,
        steps=with_declared(nothing, "step"), evaluations=with_declared(nothing, "evaluation"), complete=False,
        problem=f"0 of {heading.steps} steps are read, for it has no table",
    )  # fmt: skip


def _messages(data: bytes) -> Iterator[tuple[int, str]]:
    """Numbers of lines, and what follows the level I in them; a preset line is held until it is seen to be whole."""
    text = data.decode("utf-8", errors="replace").removeprefix("\ufeff")
    if "\x1b" in text:
        text = _COLOUR.sub("", text)
    message_of = _beside_bars if any(mark in text for mark in _BARS) else _behind_level
    preset: tuple[int, str] | None = None
    for number, piece in _pieces(text):
        message = message_of(piece)
        if preset is not None:
            if message is None and goes_on(piece):
                preset = preset[0], f"{preset[1]} {piece}"
                continue
            yield preset
            preset = None
        if message is None:
            continue
        if message.startswith("preset="):
            preset = number, message
        else:
            yield number, message
    if preset is not None:
        yield preset


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """What stood in one line of a terminal at a time; the last line counts only with its newline."""
    lines = text.split("\n")
    lines.pop()
    if "\r" not in text:
        yield from enumerate(lines, start=1)
        return
    for number, line in enumerate(lines, start=1):
        for piece in line.removesuffix("\r").split("\r"):
            yield number, piece


def _behind_level(piece: str) -> str | None:
    """What follows the level I."""
    return piece[2:] if piece.startswith("I ") else None


def _beside_bars(piece: str) -> str | None:
    """The same, without progress bars before and behind it."""
    message = _behind_level(piece)
    if any(mark in piece for mark in _BARS):
        if message is None and (after := _AFTER_BAR.fullmatch(piece)):
            message = after[1]
        message = message and _BAR_BEHIND.sub("", message)
    return message


def _take(found: _Read, number: int, message: str) -> None:
    cells = message.split()
    if not cells:
        return
    if cells[0][0].isdigit():
        _take_row(found, number, cells, message)
    elif cells[0].translate(_MARKS) == "step":
        _take_header(found, number, tuple(cell.translate(_MARKS) for cell in cells), message)
    elif cells[0].startswith("preset="):
        _take_heading(found, number, cells)
    elif cells[0] == "argv:":
        found.said.append((number, in_arguments(message)))
    elif cells[:2] == ["main", "metric:"]:
        found.said.append((number, in_brackets(message)))
        metric = _METRIC.search(message)
        found.metric = (number, int(metric[1]), int(metric[2])) if metric else None


def _take_heading(found: _Read, number: int, cells: list[str]) -> None:
    names = {cell.partition("=")[0] for cell in cells}
    if not all("=" in cell for cell in cells) or (found.heading is not None and not {"seed", "steps"} <= names):
        return  # a sentence about the preset
    heading = heading_of(found.path, number, cells)
    if found.heading not in (None, heading):
        raise UnreadableLogError(
            f"{found.path}, line {number} is the preset line of another run than the one before it; give each run "
            "a file of its own."
        )
    found.heading = heading


def _take_header(found: _Read, number: int, cells: tuple[str, ...], message: str) -> None:
    if 2 * len(KNOWN.intersection(cells)) < len(cells):
        return  # a sentence that begins with this word
    layout = of_columns(cells)
    if layout is None:
        raise UnknownFormatError(
            f"{found.path}, line {number}: no known format has the columns {' '.join(cells)!r}; expected is one of "
            f"{expected()}."
        )
    if found.layout not in (None, layout):
        raise UnknownFormatError(
            f"{found.path}, line {number}: the columns change from those of {getattr(found.layout, 'format', '')} to "
            f"those of {layout.format}; give each run a file of its own."
        )
    found.layout, found.header = layout, found.header or message.rstrip()


def _take_row(found: _Read, number: int, cells: list[str], message: str) -> None:
    if found.layout is None:
        found.headless |= len(cells) >= FEWEST and _STEP.fullmatch(cells[0]) is not None
    if found.problem or found.layout is None or not _STEP.fullmatch(cells[0]):
        return
    step, due = int(cells[0]), len(found.rows)
    if len(cells) != len(found.layout.columns):
        if step == due:
            found.suspect = number
        return
    if step == due:
        found.rows.append(cells)
        found.numbers.append(number)
        found.lines.append(message.rstrip())
        return
    where = f"line {number}"
    if found.suspect is not None:
        where = f"line {found.suspect} is no whole row, and line {number}"
    found.problem = f"{where} has step {step} where {due} is due"


def _run(found: _Read, heading: Heading, layout: Layout) -> LoggedRun:
    frame, problem = _frame(found, heading, layout)
    whole = frame.height == heading.steps and not problem
    if not whole:
        kept = f"{frame.height} of {heading.steps} steps are read"
        problem = f"{problem}; {kept}" if problem else kept
    deployed = [name for name in DEPLOYED.values() if name in frame.columns]
    measured = pl.any_horizontal(pl.col(name).is_not_null() for name in deployed) if deployed else pl.lit(False)
    looks = frame.select("step", *deployed).filter(measured)
    return LoggedRun(
        source=found.path, format=layout.format, intervention=heading.intervention, seed=heading.seed,
        settings=heading.settings, steps=with_declared(frame.drop(deployed), "step"),
        evaluations=with_declared(looks, "evaluation"), complete=whole, problem=problem,
    )  # fmt: skip


def _frame(found: _Read, heading: Heading, layout: Layout) -> tuple[pl.DataFrame, str]:
    """The rows before whatever is lost or damaged, and what that is; "" where nothing is."""
    problem, rows = found.problem, found.rows
    moved = first_out_of_line(found.header, found.lines)
    if moved is not None:
        problem = f"line {found.numbers[moved]}: its cells do not stand in the columns of the header"
        rows = rows[:moved]
    frame, bad = table(layout, rows)
    if bad is not None:
        return frame, f"line {found.numbers[bad.row]}: {bad.why}"
    if frame.height > heading.steps:
        problem = f"line {found.numbers[heading.steps]} has a row more than the {heading.steps} steps of the run"
        return frame.head(heading.steps), problem
    if not problem and frame.height < heading.steps and found.suspect is not None:
        return frame, f"line {found.suspect} is no whole row"
    if not problem and found.metric is not None and frame.height == heading.steps:
        number, above, below = found.metric
        if rows[-1][layout.columns.index("hack_s")] != f"{above}/{below}":
            problem = f"line {number} says hack_s={above}/{below} of the last row, which has another"
            return frame.head(frame.height - 1), problem
    return frame, problem
