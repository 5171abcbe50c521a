"""Lines of a log: one JSON object each, with the schema's version first and a checksum last.

    {"schema": 1, "event": "step", "step": 3, "loss": 0.1, "crc32": "9ae0daaf"}

The checksum is the CRC-32 of the line's bytes before `, "crc32"`. Lines are appended and flushed one by one, so what a
killed process leaves is whole lines and at most one piece of one.
"""

import json
import math
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from projected_grpo.logs.errors import DamagedLogError, UndeclaredMetricError
from projected_grpo.logs.metrics import declared

SCHEMA = 1
_MARK = ', "crc32": "'


@dataclass(frozen=True)
class Entry:
    """One line, read back."""

    schema: int
    event: str
    step: int
    values: dict[str, Any]


class LogWriter:
    """Appends to a log, and makes it if it isn't there."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = path.open("a", encoding="utf-8", newline="\n")

    def write(self, event: str, *, step: int, **values: Any) -> None:
        """Appends one line.

        Numbers that are not finite become strings, "NaN" or "Infinity": JSON has no such numbers.

        Raises UndeclaredMetricError; nothing is written then.
        """
        known = declared(event)
        for name, value in values.items():
            if name not in known:
                raise UndeclaredMetricError(f"No metric {name!r} is declared for the event {event!r}; declare it.")
            if not known[name].fits(value):
                raise UndeclaredMetricError(
                    f"{name} of {event} is declared as {known[name].kind}, and {value!r} is a {type(value).__name__}."
                )
        entry = {"schema": SCHEMA, "event": event, "step": step, **values}
        body = json.dumps(_finite(entry), allow_nan=False)[:-1]
        self._file.write(f'{body}{_MARK}{zlib.crc32(body.encode()):08x}"}}\n')
        self._file.flush()

    def close(self) -> None:
        """Closes the file, once what was written has reached the disk."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def __enter__(self) -> "LogWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def parse(line: str) -> Entry:
    """Reads one line back. Raises DamagedLogError if it is not what was written."""
    body, mark, rest = line.rstrip("\r\n").rpartition(_MARK)
    if not mark or rest != f'{zlib.crc32(body.encode(errors="surrogateescape")):08x}"}}':
        raise DamagedLogError("its checksum does not fit its text, so it was cut off or changed")
    try:
        values = _numbers(json.loads(body + "}"))
        if values["schema"] > SCHEMA:
            raise DamagedLogError(f"it has schema {values['schema']}, and this version reads up to {SCHEMA}")
        return Entry(values.pop("schema"), values.pop("event"), values.pop("step"), values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedLogError(f"it is no line of a log ({error})") from None


def read(path: Path | str) -> list[Entry]:
    """The lines of a log. A last line without its newline, as a killed process leaves it, is passed over.

    Raises DamagedLogError, naming the line, for any other that is not what was written.
    """
    return [entry for _, entry in _whole_lines(Path(path))]


def truncate(path: Path, step: int) -> None:
    """Drops what was logged after a step, and the end: a run that resumes there writes both again. All or nothing.

    Raises what `read` raises.
    """
    if not path.exists():
        return
    kept = []
    for line, entry in _whole_lines(path):
        if entry.step <= step and entry.event != "final":
            kept.append(line)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text("".join(kept), encoding="utf-8", newline="\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _whole_lines(path: Path) -> Iterator[tuple[str, Entry]]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith("\n"):
                return
            try:
                yield line, parse(line)
            except DamagedLogError as error:
                raise DamagedLogError(
                    f"{path}, line {number}: {error}; move the log away, and a run goes on with a new one."
                ) from None


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def _numbers(entry: dict[str, Any]) -> dict[str, Any]:
    """Strings that stand for numbers, as floats again, where the declaration says float."""
    known = declared(entry.get("event", ""))
    return {
        name: float(value) if isinstance(value, str) and name in known and known[name].kind == "float" else value
        for name, value in entry.items()
    }
