"""logs.*: what is written is read, whatever happens to the file, and for ever (T22).

write then read is the identity      damage leaves a prefix that is marked, or an error      columns are only appended

Each check counts what is wrong, so that 0 is allowed.
"""

from collections.abc import Callable, Iterator, Sequence

from invariants.contracts.logs import Column, LogEvent, LogSetting
from invariants.errors import SubjectContractError
from invariants.measurement import NOTHING, Events, Measurement
from invariants.registry import invariant
from invariants.trials import LogTrial
from invariants.trials.logs import differences

SPOTS = 60  # of a log at which it is cut or changed


def counted(wrong: Sequence[str], where: str, occurred: Events = NOTHING) -> Measurement:
    """How much is wrong, and the first of it in words."""
    events = {name: int(count) for name, count in occurred.items()}
    return Measurement(float(len(wrong)), 0.0, "; ".join([where, *wrong[:3]]), events)


def is_released(setting: LogSetting) -> str | None:
    """There are logs of a release."""
    return None if setting.frozen else "no log of a release is handed in"


def has_columns(setting: LogSetting) -> str | None:
    """There are columns of a release."""
    return None if setting.columns else "no columns of a release are named"


def is_checked(setting: LogSetting) -> str | None:
    """A changed byte is to be noticed."""
    return None if setting.checked else "the log has no checksums"


@invariant(
    "logs.round_trip", theorem="T22", capability="logs", events=("a value", "a null"), reads="a writer and a reader"
)
def round_trip(trial: LogTrial) -> Measurement | None:
    """What is written of a run is read back, every value of every line, and the log is complete.

    Fails when: a table is made of other numbers than the run's.

    Likely cause: digits that are cut off, a null that is written as 0, a text that breaks the line, or a NaN that the
    format does not have.
    """
    if trial.case.kind != "run" or trial.written is None or (found := trial.read(trial.written)) is None:
        return None
    wrong = differences(found.events, trial.run.events)
    if not found.complete:
        wrong.append("the log of a finished run is not complete")
    values = [value for event in trial.run.events for value in event.values.values()]
    nulls = sum(value is None for value in values)
    return counted(wrong, trial.case.label, {"a value": len(values) - nulls, "a null": nulls})


def survived(trial: LogTrial, damaged: Iterator[tuple[str, bytes]], event: str) -> Measurement | None:
    """How often a damaged log gives anything but a prefix of what the whole one gives, marked as such, or an error."""
    if trial.case.kind != "run" or trial.written is None or (whole := trial.read(trial.written)) is None:
        return None
    wrong, made = [], 0
    for how, text in damaged:
        if text != trial.written:
            made += 1
            wrong += [f"{how}: {what}" for what in taken_for(trial, text, whole.events)[:1]]
    return counted(wrong, trial.case.label, {event: made})


def taken_for(trial: LogTrial, text: bytes, due: Sequence[LogEvent]) -> list[str]:
    """What is wrong with what a damaged log is read to."""
    try:
        found = trial.read(text)
    except SubjectContractError:
        raise
    except Exception as error:
        return [] if str(error).strip() else [f"{type(error).__name__} without a word"]
    assert found is not None, "the whole log was read"
    if wrong := differences(found.events, due[: len(found.events)]):
        return wrong
    return ["it counts as complete"] if found.complete and len(found.events) < len(due) else []


def spots(text: bytes) -> list[int]:
    """Places all over a log, and every end of a line and its neighbours."""
    ends = {at + near for at, byte in enumerate(text) if byte == 10 for near in (-1, 0, 1)}
    return sorted(at for at in ends | {n * len(text) // SPOTS for n in range(SPOTS)} if 0 <= at < len(text))


@invariant("logs.truncation", theorem="T22", capability="logs", events=("cut off",), reads="a writer and a reader")
def truncation(trial: LogTrial) -> Measurement | None:
    """A log that was cut off anywhere is read to what stands before the cut and is not complete, or is an error.

    Fails when: a run that was killed is tabled as a whole one, or by a number of which the last digits are missing.

    Likely cause: the last line counts although its end is missing, or nothing says that a run has come to its end.
    """
    text = trial.written or b""
    return survived(trial, ((f"cut after {at} bytes", text[:at]) for at in spots(text)), "cut off")


@invariant(
    "logs.damage", theorem="T22", capability="logs", applies=is_checked, events=("changed",),
    reads="a writer and a reader",
)  # fmt: skip
def damage(trial: LogTrial) -> Measurement | None:
    """A log of which bytes or lines were changed, lost or doubled is read to a prefix of what was written and is not
    complete, or is an error; never to another number.

    Fails when: a table is made of a number that nobody wrote.

    Likely cause: no checksum, one that is not compared, or lines that do not know their place.
    """
    return survived(trial, changed(trial.written or b""), "changed")


def changed(text: bytes) -> Iterator[tuple[str, bytes]]:
    """A log after something has happened to it."""
    for at in spots(text):
        for byte in {text[at] ^ 1, 32, 10, 57}:
            yield f"byte {at} is {byte}", text[:at] + bytes([byte]) + text[at + 1 :]
        yield f"byte {at} is lost", text[:at] + text[at + 1 :]
    lines = text.splitlines(keepends=True)
    for n, line in enumerate(lines):
        yield f"line {n} is lost", b"".join([*lines[:n], *lines[n + 1 :]])
        yield f"line {n} stands twice", b"".join([*lines[:n], line, *lines[n:]])
        yield f"line {n} has changed places", b"".join([*lines[:n], *reversed(lines[n : n + 2]), *lines[n + 2 :]])


@invariant(
    "logs.reads_released", theorem="T22", capability="logs", applies=is_released, events=("a line",),
    reads="a reader", per="setting",
)  # fmt: skip
def reads_released(trial: LogTrial) -> Measurement | None:
    """A log that a released writer wrote is read to what it was written from.

    Fails when: results of last year are other results today.

    Likely cause: columns that are read by their place in today's order, or a version that is not told from today's.
    """
    if trial.logs.read is None:
        return None
    wrong: list[str] = []
    for number, frozen in enumerate(trial.setting.frozen):
        try:
            found = trial.read(frozen.text)
        except SubjectContractError:
            raise
        except Exception as error:
            wrong.append(f"log {number}: {type(error).__name__}: {error}")
            continue
        wrong += [f"log {number}, {what}" for what in differences(found.events if found else (), frozen.events)]
    lines = sum(len(frozen.events) for frozen in trial.setting.frozen)
    return counted(wrong, trial.setting.label, {"a line": lines})


def by_event(columns: Sequence[Column]) -> dict[str, list[Column]]:
    """The columns of each kind of line."""
    found: dict[str, list[Column]] = {}
    for column in columns:
        found.setdefault(column.event, []).append(column)
    return found


def declared(
    trial: LogTrial, problems: Callable[[Sequence[Column], Sequence[Column]], list[str]]
) -> Measurement | None:
    """What is wrong with today's columns beside those of the release."""
    if trial.columns is None:
        return None
    then, now = by_event(trial.setting.columns), by_event(trial.columns)
    wrong = [f"{event}, {what}" for event, columns in then.items() for what in problems(columns, now.get(event, []))]
    return counted(wrong, trial.setting.label, {"a column": len(trial.setting.columns)})


@invariant(
    "logs.columns_appended", theorem="T22", capability="logs", applies=has_columns, events=("a column",),
    reads="its columns", per="setting",
)  # fmt: skip
def columns_appended(trial: LogTrial) -> Measurement | None:
    """The columns of the last release are there today, each at its place; new ones stand behind them.

    Fails when: whoever reads by index reads the neighbour.

    Likely cause: a column that was inserted where it fits best, sorted in, or removed.
    """

    def problems(then: Sequence[Column], now: Sequence[Column]) -> list[str]:
        names = [column.name for column in now]
        return [
            f"column {at}: {names[at] if at < len(names) else 'nothing'} for {old.name}"
            for at, old in enumerate(then)
            if names[at : at + 1] != [old.name]
        ]

    return declared(trial, problems)


@invariant(
    "logs.names_keep_meaning", theorem="T22", capability="logs", applies=has_columns, events=("a column",),
    reads="its columns", per="setting",
)  # fmt: skip
def names_keep_meaning(trial: LogTrial) -> Measurement | None:
    """A name of the last release stands today for what it stood for: type, unit, meaning and arms; and it stands once.

    Fails when: two quantities are compared since they have one name.

    Likely cause: the name of a column that was free, or fitted, was used again.
    """

    def problems(then: Sequence[Column], now: Sequence[Column]) -> list[str]:
        wrong = []
        for old in then:
            same_name = [column for column in now if column.name == old.name]
            wrong += [f"{old.name} stands {len(same_name)} times"] if len(same_name) > 1 else []
            for what in ("kind", "unit", "meaning", "arms"):
                values = [getattr(column, what) for column in same_name[:1]]
                wrong += [
                    f"{old.name}: {what} {v!r} for {getattr(old, what)!r}" for v in values if v != getattr(old, what)
                ]
        return wrong

    return declared(trial, problems)
