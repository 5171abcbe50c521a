"""Reading log.jsonl: each line's checksum, then the rows of the steps all at once.

The lines of the steps are nearly all of a log. The writer spells them alike, so they are told from the others by how
they begin, and polars parses them together; a line spelled otherwise is parsed by itself.
"""

import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from projected_grpo.logs import SCHEMA
from projected_grpo.logs.metrics import Event, Metric, declared
from projected_grpo.logs.numbers import as_numbers
from projected_grpo.results.errors import UnknownFormatError, UnreadableLogError
from projected_grpo.results.identity import Identity, identity_of
from projected_grpo.results.layouts import DTYPES, with_declared
from projected_grpo.results.run import LoggedRun

_TAIL = 22  # bytes of `, "crc32": "01234567"}`, which a line ends with
_LINE = b', "line": '  # its number, the last of its values
_NUMBERED = len(_LINE) + 20  # bytes in which that stands
VERSIONS = tuple(range(1, SCHEMA + 1))
_STEP = tuple(b'{"schema": %d, "event": "step", "step": ' % version for version in VERSIONS)


class _DamageError(Exception):
    """From this line on nothing is read."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(f"line {number}: {why}")
        self.number = number


@dataclass
class _Read:
    """What was found in lines that are whole."""

    steps: list[bytes] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)  # of the lines of the steps
    others: list[tuple[int, int, dict[str, Any]]] = field(default_factory=list)  # line, steps before it, entry


def read_jsonl(path: Path, data: bytes) -> LoggedRun:
    """One run from a JSONL log.

    Returns:
        The run; where a line is damaged or missing, what stands before it, marked incomplete.

    Raises:
        UnknownFormatError: a line of another schema version.
        UnreadableLogError: nothing whole says which run it is of.
    """
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    lines.pop()  # what follows the last newline: nothing, or a line that a kill cut off
    problem = ""
    while True:
        try:
            return _run(path, lines, problem)
        except _DamageError as damage:
            problem = str(damage)
            lines = lines[: damage.number - 1]


def _run(path: Path, lines: list[bytes], problem: str) -> LoggedRun:
    found = _split(path, lines)
    if not found.others or found.others[0][0] != 1 or found.others[0][2]["event"] != "run":
        reason = problem or "its first line is not that of the run"
        raise UnreadableLogError(f"{path}: {reason}, so what run it is of is not known; leave it out.")
    who = identity_of(path, found.others[0][2])
    steps = _frame("step", found.steps, found.numbers)
    _check_order(found, steps, who)
    looks = [(number, entry) for number, _, entry in found.others if entry["event"] == "evaluation"]
    final = any(entry["event"] == "final" for _, _, entry in found.others)
    complete = final and steps.height == who.steps and not problem
    if not complete:
        kept = f"{steps.height} of {who.steps} steps are read"
        kept += "" if steps.height < who.steps or problem else ", and the end of the run is missing"
        problem = f"{problem}; {kept}" if problem else kept
    return LoggedRun(
        source=path, format=f"jsonl-{found.others[0][2]['schema']}", intervention=who.intervention,
        basis=who.basis, space=who.space, reward=who.reward, variant=who.variant, seed=who.seed, settings=who.settings,
        others=who.others,
        steps=with_declared(steps, "step"),
        evaluations=with_declared(_parsed("evaluation", looks), "evaluation"), complete=complete, problem=problem,
    )  # fmt: skip


def _split(path: Path, lines: list[bytes]) -> _Read:
    """The steps' lines and all other entries; every checksum is compared."""
    found = _Read()
    crc32, steps, numbers = zlib.crc32, found.steps, found.numbers
    for number, line in enumerate(lines, start=1):
        if line[-1:] == b"\r":
            line = line[:-1]
        body = line[:-_TAIL]
        if line[-_TAIL:] != b', "crc32": "%08x"}' % crc32(body):
            raise _DamageError(number, "its checksum does not fit its text, so it was cut off or changed")
        own = body.rfind(_LINE, -_NUMBERED)
        if own >= 0 and body[own + len(_LINE) :] != b"%d" % number:
            written = body[own + len(_LINE) :].decode()
            raise _DamageError(number, f"it was written as line {written}, so lines are missing or moved")
        if body.startswith(_STEP):
            steps.append(line)
            numbers.append(number)
            continue
        entry = _entry(path, number, body)
        if entry["event"] == "step":
            steps.append(line)
            numbers.append(number)
        else:
            found.others.append((number, len(steps), entry))
    return found


def _entry(path: Path, number: int, body: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(body + b"}")
        if not isinstance(entry, dict):
            raise ValueError("no object")
    except ValueError as error:
        raise _DamageError(number, f"it is no JSON ({error})") from None
    version = entry.get("schema")
    if type(version) is not int or version not in VERSIONS:
        raise UnknownFormatError(
            f"{path}, line {number} has schema {version!r}, and this version reads schema "
            f"{' and '.join(map(str, VERSIONS))}; read the log with the version that wrote it."
        )
    if not isinstance(entry.get("event"), str) or type(entry.get("step")) is not int:
        raise _DamageError(number, "it has no event and step")
    return entry


def _frame(event: Event, lines: list[bytes], numbers: list[int]) -> pl.DataFrame:
    """All lines of steps as rows: parsed together where polars can, or else one by one."""
    schema = {"step": pl.Int64(), **{name: DTYPES[each.kind] for name, each in declared(event).items()}}
    joined = b"\n".join(lines)
    if lines and b'"NaN"' not in joined and b'nfinity"' not in joined:
        try:
            return pl.read_ndjson(joined, schema=schema)
        except pl.exceptions.PolarsError:
            pass  # a line that is spelled otherwise, or has a value of another type: the latter is named below
    return _parsed(event, [(number, json.loads(line)) for number, line in zip(numbers, lines, strict=True)])


def _parsed(event: Event, entries: Iterable[tuple[int, dict[str, Any]]]) -> pl.DataFrame:
    known, entries = declared(event), list(entries)
    made = [pl.Series("step", [entry["step"] for _, entry in entries], dtype=pl.Int64)]
    for name, metric in known.items():
        column = [entry.get(name) for _, entry in entries]
        if metric.kind != "float" or not set(map(type, column)) <= {float, type(None)}:
            column = [_value(number, metric, value) for (number, _), value in zip(entries, column, strict=True)]
        made.append(
            _by_mode(name, column) if metric.kind == "object" else pl.Series(name, column, dtype=DTYPES[metric.kind])
        )
    return pl.DataFrame(made)


def _value(number: int, metric: Metric, value: Any) -> Any:
    """A value as a column holds it."""
    try:
        found = as_numbers({metric.name: value}, {metric.name: metric})[metric.name]
        if not metric.fits(found) or (metric.kind == "int" and not -(2**63) <= (found or 0) < 2**63):
            raise ValueError(found)
        if metric.kind == "object" and found is not None:
            return {mode: _float(share) for mode, share in found.items()}
        return _float(found) if metric.kind == "float" else found
    except (ValueError, KeyError, AttributeError, OverflowError):
        why = f"{metric.name} is {value!r:.60}, and is declared as {metric.kind}"
        raise _DamageError(number, f"{why} of numbers" if metric.kind == "object" else why) from None


def _float(value: Any) -> float | None:
    if value is not None and type(value) not in (int, float):
        raise ValueError(value)
    return None if value is None else float(value)


def _by_mode(name: str, values: list[dict[str, float | None] | None]) -> pl.Series:
    """Objects of numbers as a struct, which has all modes that any evaluation of the run has."""
    modes = sorted({mode for value in values for mode in value or ()})
    if not modes:
        return pl.Series(name, [None] * len(values), dtype=pl.Null)
    rows = [None if value is None else {mode: value.get(mode) for mode in modes} for value in values]
    return pl.Series(name, rows, dtype=pl.Struct(dict.fromkeys(modes, pl.Float64)))


def _check_order(found: _Read, steps: pl.DataFrame, who: Identity) -> None:
    """Steps are 1, 2, 3, ...; what was lost or doubled as a whole shows in that, and in evaluations that were due."""
    wrong = steps["step"] != pl.int_range(1, steps.height + 1, eager=True)
    if wrong.any():
        row = wrong.arg_max() or 0
        raise _DamageError(found.numbers[row], f"it has step {steps['step'][row]} where {row + 1} is due")
    if steps.height > who.steps:
        raise _DamageError(found.numbers[who.steps], f"it has a step more than the {who.steps} of the run")
    looked: set[int] = set()
    for at, (number, done, entry) in enumerate(found.others):
        event, step = entry["event"], entry["step"]
        if event == "run" and at:
            raise _DamageError(number, "another run begins in the same file")
        if event in ("evaluation", "final") and step != done:
            raise _DamageError(number, f"it is of step {step}, and stands behind step {done}")
        if event == "evaluation" and step in looked:
            raise _DamageError(number, f"step {step} is evaluated a second time")
        if event == "evaluation":
            looked.add(step)
        if event == "final" and done != who.steps:
            raise _DamageError(number, f"the run ends after {done} of its {who.steps} steps")
        if event == "final" and at + 1 < len(found.others):
            raise _DamageError(found.others[at + 1][0], "it stands behind the end of the run")
    _check_evaluations(found, steps.height, looked, who)


def _check_evaluations(found: _Read, done: int, looked: set[int], who: Identity) -> None:
    if not looked or who.evaluate_every is None:
        return
    ended = any(entry["event"] == "final" for _, _, entry in found.others)
    due = set(range(who.evaluate_every, done, who.evaluate_every)) if who.evaluate_every else set()
    for step in sorted((due | ({who.steps} if ended else set())) - looked):
        after = found.numbers[step:] + [number for number, at, _ in found.others if at >= step]
        raise _DamageError(min(after), f"the evaluation of step {step}, which was due before it, is missing")
