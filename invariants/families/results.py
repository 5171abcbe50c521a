"""logs.*: what is made of logs: no arm is lost, like is compared with like, and what ships is what is shown (T22)."""

import math
from collections.abc import Sequence
from statistics import fmean

import torch

from invariants.bounds import unit_roundoff
from invariants.cases.logs import LAST
from invariants.contracts.logs import Delta, ResultRun, View
from invariants.families.logs import counted
from invariants.measurement import Measurement, worst
from invariants.registry import invariant
from invariants.trials import LogTrial

VIEWS: tuple[View, ...] = ("trained", "deployed")
U = unit_roundoff(torch.float64)


def value(run: ResultRun, view: View) -> float | None:
    """The mean of what was measured in the last steps; None if nothing was."""
    shares = (run.hack if view == "trained" else run.hack_deployed)[-LAST:]
    measured = [share for share in shares if share is not None]
    return fmean(measured) if measured else None


def partners(run: ResultRun, runs: Sequence[ResultRun], view: View) -> list[ResultRun]:
    """The vanilla runs of its seed and configuration that have the value."""
    return [
        other
        for other in runs
        if (other.intervention, other.seed, other.config) == ("none", run.seed, run.config)
        and value(other, view) is not None
    ]


@invariant(
    "logs.every_arm", theorem="T22", capability="logs", events=("a routed run", "a run without a partner"),
    reads="a table of differences",
)  # fmt: skip
def every_arm(trial: LogTrial) -> Measurement | None:
    """Every run of every arm but vanilla is in the table of differences, as trained and as deployed, with a partner or
    without.

    Fails when: an arm is missing, and nobody notices what is not there.

    Likely cause: arms that are selected by the name of one of them.
    """
    if trial.case.kind != "table" or trial.deltas is None:
        return None
    shown = {(name, delta.view) for delta in trial.deltas for name in delta.runs}
    due = [run for run in trial.runs.values() if run.intervention != "none"]
    wrong = [
        f"{run.name} ({run.intervention}), {view}, is missing" for run in due for view in VIEWS
        if (run.name, view) not in shown
    ]  # fmt: skip
    alone = sum(not partners(run, [*trial.runs.values()], "trained") for run in due)
    routed = sum(run.intervention == "route" for run in due)
    return counted(wrong, trial.case.label, {"a routed run": routed, "a run without a partner": alone})


@invariant(
    "logs.same_seeds", theorem="T22", capability="logs", events=("a difference",), reads="a table of differences"
)
def same_seeds(trial: LogTrial) -> Measurement | None:
    """A difference is taken between runs of one arm and vanilla runs of the same seeds and the same configuration.

    Fails when: a mean over seeds is compared with a single seed, and luck is taken for an effect.

    Likely cause: one side is grouped by seed and the other is not, or whatever vanilla run is there is taken.
    """
    if trial.case.kind != "table" or trial.deltas is None:
        return None
    wrong = [what for delta in trial.deltas if delta.against for what in unlike(trial, delta)]
    return counted(wrong, trial.case.label, {"a difference": sum(bool(delta.against) for delta in trial.deltas)})


def unlike(trial: LogTrial, delta: Delta) -> list[str]:
    """What is not comparable in a difference."""
    ours, theirs = ([trial.runs[name] for name in names] for names in (delta.runs, delta.against))
    where = f"{' and '.join(delta.runs)} against {' and '.join(delta.against)}"
    sides = [[{(run.seed, run.config) for run in side}] for side in (ours, theirs)]
    wrong = [] if sides[0] == sides[1] else [f"{where}: seeds and configurations {sides[0]} against {sides[1]}"]
    wrong += [f"{where}: {run.name} is no vanilla run" for run in theirs if run.intervention != "none"]
    return wrong + ([f"{where}: several arms"] if len({run.intervention for run in ours}) != 1 else [])


@invariant("logs.deltas", theorem="T22", capability="logs", events=("a number",), reads="a table of differences")
def deltas(trial: LogTrial) -> Measurement | None:
    """A difference is that of the means over the last five steps of what was measured, averaged over seeds, and over
    vanilla runs of one seed that have the value; without a partner there is none.

    Fails when: the table shows another number than the logs.

    Likely cause: nulls that count as 0, other steps than the last ones, or all vanilla runs averaged whatever their
    seed.
    """
    if trial.case.kind != "table" or trial.deltas is None:
        return None
    found = [difference(trial, delta) for delta in trial.deltas]
    return worst(found, occurred={"a number": sum(delta.hack is not None for delta in trial.deltas)})


def difference(trial: LogTrial, delta: Delta) -> Measurement:
    """What is off in one difference. Shares are at most 1, so that a mean of n is off by n u, and there are three."""
    runs = [trial.runs[name] for name in delta.runs]
    others = [trial.runs[name] for name in delta.against]
    where = f"{' and '.join(delta.runs)}, {delta.view}"
    due = by_seed(runs, delta.view), by_seed(others, delta.view)
    if due[0] is None or due[1] is None or delta.hack is None:
        missing = delta.hack is not None or (due[0] is not None and any(
            partners(run, [*trial.runs.values()], delta.view) for run in runs))  # fmt: skip
        return Measurement(math.inf if missing else 0.0, 0.0, f"{where}: {delta.hack} for none, or none for a number")
    terms = LAST * (len(runs) + len(others)) + len(runs) + len(others) + 2
    return Measurement(abs(delta.hack - (due[0] - due[1])), terms * U, where, scale=1.0)


def by_seed(runs: Sequence[ResultRun], view: View) -> float | None:
    """The mean over seeds of the mean over the runs of a seed that have the value."""
    values: dict[int, list[float]] = {}
    for run in runs:
        if (own := value(run, view)) is not None:
            values.setdefault(run.seed, []).append(own)
    return fmean(fmean(of_seed) for of_seed in values.values()) if values else None


@invariant(
    "logs.deployed_is_primary", theorem="T22", capability="logs", events=("a routed run",), reads="a plot",
)  # fmt: skip
def deployed_is_primary(trial: LogTrial) -> Measurement | None:
    """Every run is in the plot. What is primary of a routed run is what it does as deployed, its training-time hacks
    are beside it and not primary, and every point of a line is one that was measured.

    Fails when: the claim is about the model without its quarantine, and the picture shows the one with it.

    Likely cause: all arms are drawn from the same column.
    """
    if trial.case.kind != "table" or trial.series is None:
        return None
    wrong = [what for run in trial.runs.values() for what in misdrawn(trial, run)]
    return counted(
        wrong, trial.case.label, {"a routed run": sum(r.intervention == "route" for r in trial.runs.values())}
    )


def misdrawn(trial: LogTrial, run: ResultRun) -> list[str]:
    """What is wrong with the lines of a run."""
    own = [series for series in trial.series or () if run.name in series.runs]
    routed = run.intervention == "route"
    alone = [series for series in own if series.runs == (run.name,)]
    wrong = [
        f"{run.name} ({run.intervention}): {series.view} is drawn from other numbers"
        for series in alone
        if dict(series.points) != points(run, series.view)
    ]
    if not any(series.primary for series in alone):
        wrong.append(f"{run.name} ({run.intervention}): no line is primary")
    if routed and any(series.primary and series.view != "deployed" for series in own):
        wrong.append(f"{run.name} (route): what is primary is as trained")
    if routed and not any(series.view == "trained" and not series.primary for series in alone):
        wrong.append(f"{run.name} (route): as trained is not shown beside it")
    return wrong


def points(run: ResultRun, view: View) -> dict[int, float]:
    """Step -> share of hacks, where it was measured."""
    shares = run.hack if view == "trained" else run.hack_deployed
    return {step: share for step, share in enumerate(shares) if share is not None}
