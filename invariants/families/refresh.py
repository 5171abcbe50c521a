"""optimizer.refresh_*: what holds after the basis was replaced in the middle of a run.

From the first step with the new basis on, that one is in force, for what its space splits: the update, or everything
that was learned. In gradient space that asks for an optimizer without a memory, or one that splits its memory too.
"""

from invariants.families.optimizer import drift, leak, outside_the_span
from invariants.hypotheses import splits_all_of_what_was_learned, splits_each_move, splits_what_was_learned
from invariants.measurement import Measurement
from invariants.registry import invariant
from invariants.trials import StepTrial

REFRESH = "how its basis is replaced: give the Stepper a refresh"


@invariant(
    "optimizer.refresh_update_leak", theorem="T11, T12", capability="routed_step", applies=splits_each_move,
    events=("vanilla moved hack-ward",), reads=REFRESH,
)  # fmt: skip
def refresh_update_leak(trial: StepTrial) -> Measurement | None:
    """After a refresh no update of the deployed vector is hack-ward along the new basis, from the first step on.

    Fails when: steps after a refresh still move the deployed model along the directions that were found last.

    Likely cause: momentum carries what the old basis let through, or the step splits with the basis of a step ago.
    """
    route, vanilla = trial.refreshed("route"), trial.run("none")
    if route is None:
        return None
    moves, vanillas = (run.deployed.since(trial.refreshed_at).updates for run in (route, vanilla))
    rounding = 2 * drift(trial, route.deployed, route.quarantine)
    return leak(trial, moves, vanillas, rounding, basis=trial.other_basis)


@invariant(
    "optimizer.refresh_displacement_leak", theorem="T12'", capability="routed_step",
    applies=splits_all_of_what_was_learned, events=("vanilla moved hack-ward",), reads=REFRESH,
)  # fmt: skip
def refresh_displacement_leak(trial: StepTrial) -> Measurement | None:
    """After a refresh the deployed vector is nowhere hack-ward of its start along the new basis.

    Fails when: the deployed model keeps what it learned along the new directions before they were known.

    Likely cause: the displacement is split with the basis of a step ago, or measured from the refresh instead of the
    start.
    """
    route, vanilla = trial.refreshed("route"), trial.run("none")
    if route is None:
        return None
    at = trial.refreshed_at
    moves, vanillas = ({name: d[at:] for name, d in run.deployed.displacements.items()} for run in (route, vanilla))
    rounding = 2 * drift(trial, route.deployed, route.quarantine)
    return leak(trial, moves, vanillas, rounding, basis=trial.other_basis)


@invariant(
    "optimizer.refresh_span", theorem="T12'", capability="routed_step", applies=splits_what_was_learned,
    events=("quarantine moved",), reads=REFRESH,
)  # fmt: skip
def refresh_span(trial: StepTrial) -> Measurement | None:
    """After a refresh the quarantine lies in the span of the new basis, and holds nothing along the old one.

    Fails when: deleting the quarantine deletes what the basis in force does not name.

    Likely cause: the removed parts of all steps are added up instead of split anew, or the basis is one of a step ago.
    """
    route = trial.refreshed("route")
    return None if route is None else outside_the_span(trial, route, trial.other_basis, since=trial.refreshed_at)
