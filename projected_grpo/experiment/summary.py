"""The table of an experiment: every arm beside solve, format and what is left off V, and beside what it must beat.

Differences are paired: the same warm-up, the same seed, the same evaluation prompts with the same luck. Intervals are
bootstraps over these cells (`projected_grpo.results.bootstrap`), and of so few they show how far single cells carry a
mean; a claim of "beats" is made where they leave no doubt, and is no test of significance.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from projected_grpo.experiment.grid import Arm, Experiment
from projected_grpo.experiment.outcome import LIMITS, Outcome
from projected_grpo.results.bootstrap import interval

Verdict = Literal["yes", "no", "only along V", ""]
HEALTHY_FORMAT = 0.85
TOLERATED = 0.02  # of solve, in which a claim against the baseline may be lower: one standard error of an evaluation


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over cells; its standard error and bootstrap interval where there are enough."""

    mean: float
    error: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """One arm, over all warm-ups and seeds.

    hack, solve, format: of the model that would be shipped; trained_hack, trained_solve: of the one that was sampled in
    training, the quarantine included.
    off_axes: the same model without anything along V. less_against, less_control: minus the arm that it is compared
    with. beats: whether it beats that arm's hack without losing solve or format; "only along V" if what it wins is
    gone once nothing is along V. windup: how far the optimizer's point is from the start at the end, beside how
    far the model is; None where it is where the model is.
    """

    arm: str
    of: str | None
    against: str | None
    control: str | None
    hack: Estimate
    solve: Estimate
    format: Estimate
    hack_by_mode: Mapping[str, float]
    off_axes_hack: Estimate | None
    off_axes_solve: Estimate | None
    less_against: Mapping[str, Estimate]
    less_control: Mapping[str, Estimate]
    alive: int
    windup: Estimate | None
    beats: Verdict
    trained_hack: Estimate
    trained_solve: Estimate


@dataclass(frozen=True, kw_only=True)
class Gauge:
    """How often a gauge of drift was right, over runs of spaces in which drift can add up."""

    name: str
    limit: float
    died: int
    flagged: int
    lived: int
    false_alarms: int
    steps_ahead: float | None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """An experiment with what came out; `by_mode` where V is told of some modes only: hacks are shown by mode."""

    name: str
    question: str
    digest: str
    warmups: tuple[int, ...]
    seeds: tuple[int, ...]
    base: Mapping[str, float]
    rows: tuple[Row, ...]
    gauges: tuple[Gauge, ...]
    made_with: Mapping[str, str]
    prompts: int
    by_mode: bool
    table: Mapping[str, Mapping[str, str]]

    def row(self, arm: str) -> Row:
        """Of one arm."""
        return next(row for row in self.rows if row.arm == arm)


def summary_of(experiment: Experiment, outcomes: Sequence[Outcome]) -> Summary:
    """The table of the outcomes of all cells."""
    by_arm: dict[str, list[Outcome]] = {arm.name: [] for arm in experiment.arms}
    for each in outcomes:
        by_arm[each.cell.arm.name].append(each)
    return Summary(
        name=experiment.name, question=experiment.question, digest=experiment.digest(),
        warmups=experiment.warmups, seeds=experiment.seeds,
        base={what: statistics.fmean(each.rates["base"][what] for each in outcomes) for what in ("hack", "solve")},
        rows=tuple(_row(arm, by_arm) for arm in experiment.arms),
        gauges=tuple(_gauge(name, experiment, outcomes) for name in LIMITS), made_with=_made_with(outcomes),
        prompts=experiment.base.evaluation.evaluation_prompts,
        by_mode=any(arm.changes.get("basis", {}).get("detector_modes") for arm in experiment.arms),
        table=experiment.table,
    )  # fmt: skip


def _made_with(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Versions and devices of all runs, each that there was."""
    names = dict.fromkeys(name for each in outcomes for name in each.made_with)
    return {
        name: " and ".join(sorted({each.made_with[name] for each in outcomes if name in each.made_with}))
        for name in names
    }


def _row(arm: Arm, by_arm: Mapping[str, Sequence[Outcome]]) -> Row:
    own = by_arm[arm.name]
    off = [each.rates["off_axes"] for each in own if "off_axes" in each.rates]
    windup = [each.windup for each in own if each.windup is not None]
    against = _less(own, by_arm.get(arm.against or "", ()))
    return Row(
        arm=arm.name, of=arm.of, against=arm.against, control=arm.control,
        hack=_estimate([each.deployed["hack"] for each in own]),
        solve=_estimate([each.deployed["solve"] for each in own]),
        format=_estimate([each.deployed["format"] for each in own]),
        hack_by_mode={
            mode: statistics.fmean(each.deployed["hack_by_mode"][mode] for each in own)
            for mode in own[0].deployed["hack_by_mode"]
        },
        off_axes_hack=_estimate([rates["hack"] for rates in off]) if off else None,
        off_axes_solve=_estimate([rates["solve"] for rates in off]) if off else None,
        less_against=against, less_control=_less(own, by_arm.get(arm.control or "", ())),
        alive=sum(each.alive for each in own), windup=_estimate(windup) if windup else None,
        beats=_verdict(own, against),
        trained_hack=_estimate([each.rates["trained"]["hack"] for each in own]),
        trained_solve=_estimate([each.rates["trained"]["solve"] for each in own]),
    )  # fmt: skip


def _less(own: Sequence[Outcome], others: Sequence[Outcome]) -> dict[str, Estimate]:
    """Paired differences as deployed, and of what is left off V."""
    if not others:
        return {}
    pairs = list(zip(own, others, strict=True))
    measures: dict[str, Callable[[Outcome], Any]] = {
        "hack": lambda each: each.deployed["hack"], "solve": lambda each: each.deployed["solve"],
        "off_axes_hack": lambda each: each.rates["off_axes"]["hack"],
    }  # fmt: skip
    return {name: _estimate([of(a) - of(b) for a, b in pairs]) for name, of in measures.items()}


def _verdict(own: Sequence[Outcome], less: Mapping[str, Estimate]) -> Verdict:
    if not less or less["hack"].high is None:
        return ""
    keeps = (less["solve"].low or 0.0) >= -TOLERATED
    healthy = statistics.fmean(each.deployed["format"] for each in own) >= HEALTHY_FORMAT
    if not (less["hack"].high < 0 and keeps and healthy):
        return "no"
    off = less["off_axes_hack"].high
    return "yes" if off is not None and off < 0 else "only along V"


def _estimate(values: Sequence[float]) -> Estimate:
    bounds = interval(values) or (None, None)
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return Estimate(mean=statistics.fmean(values), error=error, low=bounds[0], high=bounds[1], n=len(values))


def _gauge(name: str, experiment: Experiment, outcomes: Sequence[Outcome]) -> Gauge:
    routed = [each for each in outcomes if each.tripped and _can_drift(experiment, each)]
    died, lived = ([each for each in routed if each.alive is alive] for alive in (False, True))
    flagged = [each for each in died if each.tripped[name] is not None]
    ahead = [each.steps - (each.tripped[name] or 0) for each in flagged]
    return Gauge(
        name=name, limit=LIMITS[name], died=len(died), flagged=len(flagged), lived=len(lived),
        false_alarms=sum(each.tripped[name] is not None for each in lived),
        steps_ahead=float(statistics.median(ahead)) if ahead else None,
    )  # fmt: skip


def _can_drift(experiment: Experiment, outcome: Outcome) -> bool:
    routing = experiment.config(outcome.cell).routing
    return routing.intervention != "none" and routing.space != "displacement"
