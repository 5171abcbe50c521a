"""Lines of a log: one JSON object each, with the schema's version first, the line's number and a checksum last.

    {"schema": 2, "event": "step", "step": 3, "loss": 0.1, ..., "line": 4, "crc32": "9ae0daaf"}

A line holds every metric of its event, in the order of their declaration, null where nothing was measured. The checksum
is the CRC-32 of the line's bytes before `, "crc32"`, the number tells a lost line from one that never was. Lines are
appended and flushed one by one, so what a killed process leaves is whole lines and at most one piece of one.
"""

import json
import os
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from projected_grpo.logs.errors import DamagedLogError, UndeclaredMetricError
from projected_grpo.logs.metrics import Arm, declared
from projected_grpo.logs.numbers import as_json, as_numbers

SCHEMA = 2
MARK = ', "crc32": "'
ENVELOPE = ("schema", "event", "step", "line")


class LogWriter:
    """Appends to a log, and makes it if it isn't there; a piece of a line that a killed process left is cut off.

    Arguments:
        path: the log.
        arm: that of the run; what is not defined in it is then refused.
    """

    def __init__(self, path: Path, *, arm: Arm | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._arm = arm
        self._lines = _cut_to_whole_lines(path)
        self._file: TextIO = path.open("a", encoding="utf-8", newline="\n")

    def write(self, event: str, *, step: int, **values: Any) -> None:
        """Appends one line; metrics that are left out are null.

        Numbers that are not finite become strings, "NaN" or "Infinity": JSON has no such numbers.

        Raises UndeclaredMetricError; nothing is written then.
        """
        check(event, values, self._arm)
        whole = {name: as_json(values.get(name)) for name in declared(event)}
        self._file.write(sealed(event, step, whole, self._lines + 1, schema=SCHEMA))
        self._file.flush()
        self._lines += 1

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


def check(event: str, values: dict[str, Any], arm: Arm | None = None) -> None:
    """Raises UndeclaredMetricError for what no declaration speaks of, for a value of another type than declared, and
    for one that is not defined in the run's arm."""
    known = declared(event)
    if not known:
        raise UndeclaredMetricError(f"No event {event!r} is declared; declare it, with its metrics.")
    for name, value in values.items():
        if name not in known:
            raise UndeclaredMetricError(f"No metric {name!r} is declared for the event {event!r}; declare it.")
        metric = known[name]
        if not metric.fits(value):
            raise UndeclaredMetricError(
                f"{name} of {event} is declared as {metric.kind}, and {value!r} is a {type(value).__name__}."
            )
        if arm is not None and arm not in metric.arms and value is not None:
            raise UndeclaredMetricError(f"{name} of {event} is not defined in the arm {arm}; leave it None.")


def sealed(event: str, step: int, values: dict[str, Any], number: int, *, schema: int) -> str:
    """A line with its number, its checksum and its end."""
    entry = {"schema": schema, "event": event, "step": step, **values, "line": number}
    body = json.dumps(entry, allow_nan=False)[:-1]
    return f'{body}{MARK}{zlib.crc32(body.encode()):08x}"}}\n'


def opened(line: str) -> tuple[int, int, str, int, dict[str, Any]]:
    """The number of a line, its schema, event, step and values, those that the schema had; raises DamagedLogError if it
    is not what was written."""
    body, mark, rest = line.rstrip("\r\n").rpartition(MARK)
    if not mark or rest != f'{zlib.crc32(body.encode(errors="surrogateescape")):08x}"}}':
        raise DamagedLogError("its checksum does not fit its text, so it was cut off or changed")
    try:
        values = json.loads(body + "}")
        schema, event, step, number = (values.pop(name) for name in ENVELOPE)
        if schema not in range(1, SCHEMA + 1):
            raise DamagedLogError(f"it has schema {schema}, and this version reads up to {SCHEMA}")
        known = {name: metric for name, metric in declared(event).items() if metric.since <= schema}
        if strange := [name for name in values if name not in known]:
            raise DamagedLogError(f"it has {', '.join(strange)}, which no declaration of {event} speaks of")
        values = as_numbers(values, known) if _has_words_for_numbers(body) else values
        if wrong := [name for name, value in values.items() if type(value) not in known[name].types]:
            raise DamagedLogError(f"its {', '.join(wrong)} of {event} is not of the type that is declared")
        return number, schema, event, step, values
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedLogError(f"it is no line of a log ({error})") from None


def _has_words_for_numbers(body: str) -> bool:
    return '"NaN"' in body or 'Infinity"' in body


def _cut_to_whole_lines(path: Path) -> int:
    """How many lines the file has, once a piece of one at its end is gone."""
    if not path.exists():
        return 0
    with path.open("r+b") as file:
        text = file.read()
        if (whole := text.rfind(b"\n") + 1) < len(text):
            file.truncate(whole)
        return text.count(b"\n")
