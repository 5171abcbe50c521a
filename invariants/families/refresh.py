"""optimizer.refresh_*: what holds after the basis was replaced in the middle of a run.

From the first step with the new basis on, that one is in force, for what its space splits: the update, or everything
that was learned. In gradient space that asks for an optimizer without a memory, or one that splits its memory too.
"""

import torch

from invariants.families.optimizer import drift, leak, outside_the_span
from invariants.hypotheses import looks_back, routes_what_was_learned, splits_all_of_what_was_learned, splits_each_move
from invariants.measurement import Measurement, same_bits, worst
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
    split, vanilla = trial.refreshed(trial.splitting), trial.run("none")
    if split is None:
        return None
    moves, vanillas = (run.deployed.since(trial.refreshed_at).updates for run in (split, vanilla))
    rounding = 2 * drift(trial, split.deployed, split.quarantine)
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
    split, vanilla = trial.refreshed(trial.splitting), trial.run("none")
    if split is None:
        return None
    at = trial.refreshed_at
    moves, vanillas = ({name: d[at:] for name, d in run.deployed.displacements.items()} for run in (split, vanilla))
    rounding = 2 * drift(trial, split.deployed, split.quarantine)
    return leak(trial, moves, vanillas, rounding, basis=trial.other_basis)


@invariant(
    "optimizer.refresh_span", theorem="T12'", capability="routed_step", applies=routes_what_was_learned,
    events=("quarantine moved",), reads=REFRESH,
)  # fmt: skip
def refresh_span(trial: StepTrial) -> Measurement | None:
    """After a refresh the quarantine lies in the span of the new basis, and holds nothing along the old one.

    Fails when: deleting the quarantine deletes what the basis in force does not name.

    Likely cause: the removed parts of all steps are added up instead of split anew, or the basis is one of a step ago.
    """
    route = trial.refreshed("route")
    return None if route is None else outside_the_span(trial, route, trial.other_basis, since=trial.refreshed_at)


@invariant(
    "optimizer.gate_starts_closed", theorem="T20", capability="routed_step", applies=looks_back,
    events=("gate opened",), reads=REFRESH,
)  # fmt: skip
def gate_starts_closed(trial: StepTrial) -> Measurement | None:
    """The predictable gate has seen nothing before the first step, nor before the first after a refresh: both remove
    nothing.

    Fails when: axes are open by what was seen along others, or by the very gradient that they are to split.

    Likely cause: the running means outlive a refresh, or are updated before they are looked at.
    """
    route = trial.refreshed("route")
    if route is None or (trial.setting.space == "gradient" and route.fed is None):
        return None
    measured = []
    for step in (0, trial.refreshed_at):
        for name, q in route.quarantine.items():
            if trial.setting.space == "gradient":
                fed = route.fed[step][1].get(name) if route.fed else None
                removed = torch.zeros_like(q[0]) if fed is None else fed
            else:
                removed = q[step + 1] - q[step] if trial.setting.space == "update" else q[step + 1]
            measured.append(same_bits(removed, torch.zeros_like(q[0]), f"{trial.case.label}, {name}, step {step}"))
    return worst(measured, occurred={"gate opened": route.quarantine.distance > 0})
