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
from projected_grpo.results.heading import Heading, heading_of
from projected_grpo.results.layouts import DEPLOYED, KNOWN, Layout, expected, of_columns, with_declared
from projected_grpo.results.rows import Bad, table
from projected_grpo.results.run import LoggedRun

_COLOUR = re.compile(r"\x1b\[[0-9;:?]*[A-DGHJKfhlmsu]|\x1b[()][0-9AB]|\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)")
# A row that was written behind a progress bar, on the same line.
_AFTER_BAR = re.compile(r"(?![A-Z] ).*[^A-Za-z]I ( *(?:step |preset=|\d+ ).*)")
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
    rows: list[list[str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)  # the rows as they stand there
    numbers: list[int] = field(default_factory=list)  # of the lines that the rows stand in
    suspect: int | None = None  # a line that begins like the row that is due, and is none
    problem: str = ""
    headless: bool = False  # something like a row stands before any header


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
    """Numbers of lines, and what follows the level I in them; the last line counts only with its newline."""
    text = data.decode("utf-8", errors="replace").removeprefix("\ufeff")
    if "\x1b" in text:
        text = _COLOUR.sub("", text)
    lines = text.split("\n")
    lines.pop()
    for number, line in enumerate(lines, start=1):
        for piece in line.removesuffix("\r").split("\r") if "\r" in line else (line,):
            if piece.startswith("I "):
                yield number, piece[2:]
            elif any(mark in piece for mark in _BARS) and (after := _AFTER_BAR.fullmatch(piece)):
                yield number, after[1]


def _take(found: _Read, number: int, message: str) -> None:
    cells = message.split()
    if not cells:
        return
    if cells[0][0].isdigit():
        _take_row(found, number, cells, message)
    elif cells[0].translate(_MARKS) == "step":
        _take_header(found, number, tuple(cell.translate(_MARKS) for cell in cells))
    elif cells[0].startswith("preset="):
        _take_heading(found, number, cells)


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


def _take_header(found: _Read, number: int, cells: tuple[str, ...]) -> None:
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
    found.layout = layout


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
    problem = found.problem
    moved = first_out_of_line(found.lines)
    if moved is not None:
        problem = f"line {found.numbers[moved]}: its cells do not end where those of the other rows do"
        found.rows = found.rows[:moved]
    frame, bad = table(layout, found.rows)
    if isinstance(bad, Bad):
        problem = f"line {found.numbers[bad.row]}: {bad.why}"
    if frame.height > heading.steps:
        problem = f"line {found.numbers[heading.steps]} has a row more than the {heading.steps} steps of the run"
        frame = frame.head(heading.steps)
    if not problem and frame.height < heading.steps and found.suspect is not None:
        problem = f"line {found.suspect} is no whole row"
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
