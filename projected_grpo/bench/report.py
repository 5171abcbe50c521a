"""What a benchmark found: rows, what could not be measured, and the machine; as JSON and back, and beside an older one.

The JSON has a schema version; its times are seconds. Two reports are compared by the ratios to the baselines, each of
which was measured in the run of its row, so that another machine or another load is no change of the code.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from projected_grpo.bench.machine import Machine
from projected_grpo.bench.shapes import Module
from projected_grpo.bench.timing import Timed, Timing
from projected_grpo.errors import SettingError

SCHEMA = 1
Settings = dict[str, str | int | float]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured job.

    group, name, settings: which one; together they name it, in this report and in others.
    time: None where something else than time was measured, which is then in `numbers`.
    baseline, ratio: the job of the same rounds that it is measured against, and its time by that one's.
    bound: seconds that no code can be below on this machine, for what has to be read, written or computed at least.
    numbers: anything else, by a name that says the unit.
    """

    group: str
    name: str
    settings: Settings = field(default_factory=dict)
    time: Timing | None = None
    baseline: str | None = None
    ratio: float | None = None
    bound: float | None = None
    numbers: dict[str, float] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str]:
        """What names the row."""
        return self.group, self.name, ", ".join(f"{key}={value}" for key, value in sorted(self.settings.items()))

    @property
    def by_bound(self) -> float | None:
        """The time by the bound."""
        return self.time.median / self.bound if self.time and self.bound else None


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that one run found."""

    machine: Machine
    shape: str
    settings: Settings
    rows: list[Row]
    left_out: list[str]  # what could not be measured here and why, a sentence each

    def as_json(self) -> str:
        """Every digit, one document."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1)

    def unlike(self, modules: Sequence[Module], *, device: torch.device, dtype: torch.dtype, threads: int) -> list[str]:
        """How a run of these differs from this report's, such as "1 threads (here 2)": rows of one name are then of
        other work.
        """
        of = {
            "modules": (self.settings.get("modules"), len(modules)),
            "entries in each set of vectors": (self.settings.get("entries"), sum(module.r for module in modules)),
            "as the dtype": (self.settings.get("dtype"), str(dtype)),
            "as the device": (torch.device(self.machine.device).type, device.type),
            "threads": (self.machine.threads, threads),
        }
        return [f"{then} {what} (here {now})" for what, (then, now) in of.items() if then != now]


def rows_of(
    timed: Timed,
    *,
    group: str,
    settings: Settings,
    baseline: str,
    bounds: dict[str, float] | None = None,
    baselines: dict[str, str] | None = None,
) -> list[Row]:
    """A row for each job of an interleaved measurement.

    Arguments:
        timed: what was measured.
        group, settings: of all rows.
        baseline: the job that others are compared to, but for those that `baselines` gives another.
        bounds: job → seconds that it cannot be below.
    """
    against = {job: (baselines or {}).get(job, baseline) for job in timed.seconds}
    return [
        Row(
            group=group, name=job, settings=settings, time=timed.timing(job),
            baseline=None if other == job else other,
            ratio=None if other == job else timed.ratio(job, other), bound=(bounds or {}).get(job),
        )
        for job, other in against.items()
    ]  # fmt: skip


def read(path: Path) -> Report:
    """A report that was written as JSON.

    Raises:
        SettingError: the file cannot be read, or is none of this schema version.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingError(
            f"{path} cannot be read ({error.strerror}); name a file that --report has written."
        ) from error
    try:
        saved: dict[str, Any] = json.loads(text)
        if saved.pop("schema") != SCHEMA:
            raise SettingError(f"{path} is of another schema version than {SCHEMA}; measure its code again.")
        rows = [Row(**{**row, "time": Timing(**row["time"]) if row["time"] else None}) for row in saved.pop("rows")]
        return Report(machine=Machine(**saved.pop("machine")), rows=rows, **saved)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, SettingError):
            raise
        why = f" ({error})" if isinstance(error, ValueError) else ""  # of no JSON; others speak of our own code
        raise SettingError(f"{path} is no report of projected-grpo bench{why}; write one with --report.") from error


@dataclass(frozen=True)
class Change:
    """One row in two reports; a factor above 1 is slower."""

    row: Row
    factor: float
    by_ratio: bool  # of the ratios to the baseline, or else, for want of one, of the times


def changes(old: Report, new: Report) -> list[Change]:
    """Every row that is in both."""
    before, found = {row.key: row for row in old.rows}, []
    for row in new.rows:
        then = before.get(row.key)
        if then is None or row.time is None or then.time is None:
            continue
        if row.ratio is not None and then.ratio:
            found.append(Change(row, row.ratio / then.ratio, True))
        else:
            found.append(Change(row, row.time.median / then.time.median, False))
    return found


def slower(found: Iterable[Change], over: float) -> Sequence[Change]:
    """The rows that have become slower, beside their baseline, by more than the factor `over`."""
    return [change for change in found if change.by_ratio and change.factor > over]
