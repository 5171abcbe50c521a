"""Reading a log back: whole, or as far as it is undamaged.

entries = read(path)              raises DamagedLogError for a line that is not what was written
recovered = recover(path)         what stands before the damage, and what the damage is
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from projected_grpo.logs.errors import DamagedLogError
from projected_grpo.logs.lines import opened, sealed
from projected_grpo.logs.numbers import as_json
from projected_grpo.whole_files import whole


@dataclass(frozen=True)
class Entry:
    """One line, read back."""

    schema: int
    event: str
    step: int
    values: dict[str, Any]


@dataclass(frozen=True)
class Recovered:
    """What is left of a log: a prefix of what was written."""

    entries: tuple[Entry, ...]
    complete: bool  # the run has come to its end, and nothing is lost
    problem: str = ""  # why it is not complete, in a sentence


def parse(line: str) -> Entry:
    """Reads one line back. Raises DamagedLogError if it is not what was written."""
    _, schema, event, step, values = opened(line)
    return Entry(schema, event, step, values)


def parse_all(text: bytes) -> Recovered:
    """The undamaged beginning of a log's bytes. A last line without its newline is passed over, as a killed process
    leaves it."""
    entries: list[Entry] = []
    problem = ""
    lines = text.decode("utf-8", errors="surrogateescape").split("\n")
    for number, line in enumerate(lines[:-1], start=1):
        try:
            entries.append(_numbered(line, number))
        except DamagedLogError as error:
            problem = f"line {number}: {error}"
            break
    complete = not problem and not lines[-1] and bool(entries) and entries[-1].event == "final"
    if not complete and not problem:
        problem = "it ends before the run does"
    return Recovered(tuple(entries), complete, problem)


def recover(path: Path | str) -> Recovered:
    """What stands in a log before its first damage, and whether that is all of a finished run. Never raises for what
    the file holds."""
    return parse_all(Path(path).read_bytes())


def read(path: Path | str) -> list[Entry]:
    """The lines of a log. A last line without its newline, as a killed process leaves it, is passed over.

    Raises DamagedLogError, naming the line, for any other that is not what was written, and where lines are missing.
    """
    return list(_entries(Path(path)))


def truncate(path: Path, step: int) -> None:
    """Drops what was logged after a step, and the end: a run that resumes there writes both again. All or nothing.

    Raises what `read` raises.
    """
    if not path.exists():
        return
    kept = [entry for entry in _entries(path) if entry.step <= step and entry.event != "final"]
    lines = [
        sealed(
            entry.event, entry.step, {name: as_json(value) for name, value in entry.values.items()}, number,
            schema=entry.schema,
        )
        for number, entry in enumerate(kept, start=1)
    ]  # fmt: skip
    with whole(path) as partial:
        partial.write_text("".join(lines), encoding="utf-8", newline="\n")


def _entries(path: Path) -> Iterator[Entry]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith("\n"):
                return
            try:
                yield _numbered(line, number)
            except DamagedLogError as error:
                raise DamagedLogError(
                    f"{path}, line {number}: {error}; put back a copy that is whole, or move it away: "
                    "a run goes on with a new log, which has no table, for it lacks the steps before."
                ) from None


def _numbered(line: str, number: int) -> Entry:
    own, schema, event, step, values = opened(line)
    if own != number:
        raise DamagedLogError(f"it says that it is line {own}, so lines are missing or stand twice before it")
    return Entry(schema, event, step, values)
