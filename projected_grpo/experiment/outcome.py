"""What came of a cell, as its folder says: rates by view, and when the drift gauges said that it goes wrong."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from projected_grpo.diagnostics import DRIFT_OPPOSITION_LIMIT, DRIFT_RATIO_LIMIT
from projected_grpo.experiment.errors import ExperimentError
from projected_grpo.experiment.grid import Cell
from projected_grpo.logs import read

LIMITS = {"drift_ratio": DRIFT_RATIO_LIMIT, "drift_opposition": DRIFT_OPPOSITION_LIMIT}
QUIET = 0.25  # share of the steps at the beginning in which the gauges say little; see docs/training.md
Steps = Sequence[tuple[int, Mapping[str, Any]]]  # number and metrics of each
ALIVE_PASSED, ALIVE_FORMAT = 0.05, 0.5


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Rates of each view: hack, solve, format, and hack_by_mode.

    tripped: gauge -> the step at which it was above its limit first, after the quiet beginning; None if it never was.
    Empty for an arm without runs of its own, or whose gauges mean nothing.
    windup: of the last step; None where nothing is dropped that the optimizer keeps.
    made_with: versions and device; empty for an arm without runs of its own.
    """

    cell: Cell
    steps: int
    rates: Mapping[str, Mapping[str, Any]]
    tripped: Mapping[str, int | None]
    windup: float | None
    made_with: Mapping[str, str]

    @property
    def deployed(self) -> Mapping[str, Any]:
        """Rates of the model that would be shipped."""
        return self.rates["deployed"]

    @property
    def alive(self) -> bool:
        """Whether the deployed model is still one that answers, be it by a hack."""
        passed = self.deployed["solve"] + self.deployed["hack"]
        return bool(passed >= ALIVE_PASSED and self.deployed["format"] >= ALIVE_FORMAT)


def outcome_of(cell: Cell, folder: Path, *, report: str, log: str | None) -> Outcome:
    """Reads a finished cell. Raises ExperimentError if it is not there, or not whole."""
    try:
        plain = json.loads((folder / report).read_text(encoding="utf-8"))
        entries = read(folder / log) if log is not None else []
        rows = [(entry.step, entry.values) for entry in entries if entry.event == "step"]
        return Outcome(
            cell=cell, steps=plain["steps"], rates=plain["rates"],
            tripped=_tripped(rows, plain["steps"]) if rows else {}, windup=rows[-1][1].get("windup") if rows else None,
            made_with=_made_with(entries[0].values) if entries else {},
        )  # fmt: skip
    except (OSError, ValueError, KeyError) as error:
        raise ExperimentError(f"{folder} is not a finished run ({error}); remove it, and run again.") from error


def _made_with(run: Mapping[str, Any]) -> dict[str, str]:
    return {**run["versions"], "device": run["config"]["model"]["device"]}


def _tripped(rows: Steps, steps: int) -> dict[str, int | None]:
    late = [(step, values) for step, values in rows if step > QUIET * steps]
    return {
        gauge: next((step for step, values in late if (values.get(gauge) or 0.0) > limit), None)
        for gauge, limit in LIMITS.items()
    }
