"""A log on one run: what was written of it is kept, and what comes back is guarded."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any

import torch

from invariants.cases.logs import LogCase, table
from invariants.contracts.logs import (
    TYPICAL,
    Column,
    Delta,
    LogEvent,
    LoggedRun,
    Logs,
    LogSetting,
    LogsFactory,
    ReadLog,
    ResultRun,
    Series,
)
from invariants.errors import SubjectContractError


@dataclass(frozen=True)
class LogTrial:
    """A log on one run, or a table of several."""

    function: LogsFactory
    _: KW_ONLY
    setting: LogSetting
    case: LogCase
    dtype: torch.dtype

    @property
    def judgeable(self) -> bool:
        """A log has no dtype."""
        return True

    @cached_property
    def logs(self) -> Logs:
        """What the subject has."""
        made = self.function()
        if not isinstance(made, Logs):
            raise SubjectContractError(f"logs must return Logs(...), not {type(made).__name__}.")
        return made

    @cached_property
    def run(self) -> LoggedRun:
        """The run of the case, with the columns of the setting, or typical ones."""
        return self.case.run(self.setting.columns or TYPICAL)

    @cached_property
    def written(self) -> bytes | None:
        """The run as the subject writes it."""
        if self.logs.write is None:
            return None
        text = self.logs.write(self.run)
        if not isinstance(text, bytes):
            raise SubjectContractError(f"write must return bytes, not {type(text).__name__}.")
        return text

    def read(self, text: bytes) -> ReadLog | None:
        """What the subject reads; raises what it raises."""
        if self.logs.read is None:
            return None
        found = self.logs.read(text)
        if not isinstance(found, ReadLog) or not all(isinstance(each, LogEvent) for each in found.events):
            raise SubjectContractError(f"read must return ReadLog(events=[LogEvent(...), ...]), not {found!r:.80}.")
        return found

    @cached_property
    def columns(self) -> list[Column] | None:
        """Today's."""
        return None if self.logs.columns is None else of_type("columns", self.logs.columns(), Column)

    @cached_property
    def runs(self) -> dict[str, ResultRun]:
        """Those that are tabled, by name."""
        return {run.name: run for run in table(self.case.seed)}

    @cached_property
    def deltas(self) -> list[Delta] | None:
        """The table."""
        if self.logs.deltas is None:
            return None
        found = of_type("deltas", self.logs.deltas([*self.runs.values()]), Delta)
        self._check_names("deltas", [name for delta in found for name in (*delta.runs, *delta.against)])
        return found

    @cached_property
    def series(self) -> list[Series] | None:
        """The plot."""
        if self.logs.series is None:
            return None
        found = of_type("series", self.logs.series([*self.runs.values()]), Series)
        self._check_names("series", [name for series in found for name in series.runs])
        return found

    def _check_names(self, part: str, names: Sequence[str]) -> None:
        for name in names:
            if name not in self.runs:
                raise SubjectContractError(f"{part}: there is no run {name!r}.")


def of_type(part: str, given: Any, kind: type[Any]) -> list[Any]:
    """What a part gives, each of the kind that it must be."""
    found = list(given)
    for each in found:
        if not isinstance(each, kind):
            raise SubjectContractError(f"{part} must give {kind.__name__}(...)s, not {type(each).__name__}.")
    return found


def same_value(a: Any, b: Any) -> bool:
    """Equal, NaN to itself; True is no 1 and None is no 0."""
    if isinstance(a, bool) or isinstance(b, bool) or a is None or b is None:
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b or (a != a and b != b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same_value(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same_value(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and bool(a == b)


def differences(found: Sequence[LogEvent], due: Sequence[LogEvent]) -> list[str]:
    """What is another value than due, in words."""
    wrong = []
    for number, (a, b) in enumerate(zip(found, due, strict=False)):
        if (a.event, a.step) != (b.event, b.step):
            wrong.append(f"line {number}: {a.event} of step {a.step} for {b.event} of step {b.step}")
            continue
        names = [*b.values, *(name for name in a.values if name not in b.values)]
        wrong += [
            f"line {number}, {b.event}: {name} is {a.values.get(name)!r:.40} for {b.values.get(name)!r:.40}"
            for name in names
            if not same_value(a.values.get(name), b.values.get(name))
        ]
    if len(found) != len(due):
        wrong.append(f"{len(found)} lines for {len(due)}")
    return wrong
