"""optimizer.*: what whole training runs keep, with the optimizer's state in them.

Every check replays a subject on recorded gradients (open loop): what the arms would have sampled is not its matter.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import product

import torch
from torch import Tensor

from invariants.bounds import gamma, orthonormality_defect, trajectory_error
from invariants.hypotheses import (
    can_keep_the_sum,
    can_match_erase,
    removes_the_component,
    runs,
    treats_empty_modules_alike,
)
from invariants.measurement import Events, Measurement, elementwise, same_bits, worst
from invariants.registry import invariant
from invariants.trajectory import Path, Trajectory
from invariants.trials import StepTrial


def drift(trial: StepTrial, *paths: Path) -> float:
    """Rounding that two runs may gather which are equal in exact arithmetic."""
    moved, size = (max(getattr(path, what) for path in paths) for what in ("moved", "size"))
    return trajectory_error(trial.case.steps, trial.width, moved, size, trial.dtype)


def compared(trial: StepTrial, a: Path, b: Path, bound: float, occurred: Events) -> Measurement:
    """Two paths, after every step."""
    measured = (
        elementwise(p[1:] - b[name][1:], bound, f"{trial.case.label}, {name}", scale=b.distance)
        for name, p in a.items()
    )
    return worst(measured, occurred=occurred)


def happened(trial: StepTrial, route: Trajectory) -> dict[str, bool | int]:
    """Events that make a comparison of arms mean something."""
    return {
        "something removed": trial.removed_something,
        "quarantine moved": route.quarantine.distance > 0,
        "clip fired": trial.steps_clipped,
    }


@invariant(
    "optimizer.keeps_sum", theorem="T9, T12", capability="routed_step", applies=can_keep_the_sum,
    events=("something removed", "quarantine moved"),
)  # fmt: skip
def keeps_sum(trial: StepTrial) -> Measurement:
    """deployed + quarantine under route follows vanilla's vector on the same gradients.

    Fails when: the training model under route is no longer the one that vanilla would have trained.

    Likely cause: two states of an optimizer that is not linear (AdamW moves both sets by about lr a step), unequal
    hyperparameters of the two sets, or a clip that scales them apart.
    """
    route, vanilla = trial.run("route"), trial.run("none")
    bound = drift(trial, route.deployed, route.quarantine, vanilla.deployed)
    return compared(trial, route.combined, vanilla.combined, bound, happened(trial, route))


@invariant(
    "optimizer.erase_match", theorem="T10, T12", capability="routed_step", applies=can_match_erase,
    events=("something removed", "quarantine moved"),
)  # fmt: skip
def erase_match(trial: StepTrial) -> Measurement:
    """The route-ablated model matches erase: route's deployed vector equals erase's on the same gradients.

    Fails when: deleting the quarantine does not give the model that dropping the gradient would have trained.

    Likely cause: the clip sees other norms in the two arms, route forces other split settings than erase, or the
    optimizer couples its parameters.
    """
    route, erase = trial.run("route"), trial.run("erase")
    bound = drift(trial, route.deployed, erase.deployed)
    return compared(trial, route.deployed, erase.deployed, bound, happened(trial, route))


@invariant(
    "optimizer.span", theorem="T11, T12", capability="routed_step", applies=runs("route"), events=("quarantine moved",)
)
def span(trial: StepTrial) -> Measurement:
    """The quarantine lies in the span of V, so that deleting it deletes nothing else.

    Fails when: the quarantine has learned along directions that are not in the basis.

    Likely cause: an optimizer with a preconditioner of its own for the quarantine (AdamW turns the direction).
    """
    route = trial.run("route")
    return outside_the_span(trial, route, trial.basis)


def outside_the_span(
    trial: StepTrial, route: Trajectory, basis: Mapping[str, Tensor], *, since: int = 0
) -> Measurement:
    """What the quarantine holds off the span of a basis, after each step but the first `since`."""
    rounding = drift(trial, route.quarantine, route.deployed)
    measured = []
    for name, path in route.quarantine.items():
        V, q = basis[name], path[1 + since :]  # (k, r), (steps, r)
        through = rounding * (1 + float((V.abs().T @ V.abs()).sum(dim=1).max()))
        arbiter = gamma(sum(V.shape) + 2, torch.float64) * q.abs().amax(dim=1, keepdim=True) * (1 + V.abs().sum())
        bound = through + arbiter + orthonormality_defect(V) * q.norm(dim=1, keepdim=True)
        where = f"{trial.case.label}, {name}"
        measured.append(elementwise(q - (q @ V.T) @ V, bound, where, scale=route.quarantine.distance))
    return worst(measured, occurred=happened(trial, route))


def leak(
    trial: StepTrial,
    moves: dict[str, Tensor],
    vanillas: dict[str, Tensor],
    rounding: float,
    *,
    basis: Mapping[str, Tensor] | None = None,
) -> Measurement:
    """The largest hack-ward coefficient relu(V(-move)), against what rounding can put there, beside vanilla's."""
    basis = trial.basis if basis is None else basis
    vanilla = {name: torch.relu(-(d @ basis[name].T)) for name, d in vanillas.items()}  # (steps, k)
    largest = max((float(c.max()) for c in vanilla.values() if c.numel()), default=0.0)
    hackward = torch.stack([c.any(dim=1) for c in vanilla.values()]).any(dim=0)  # (steps,)
    measured = []
    for name, d in moves.items():
        V = basis[name]
        bound = V.abs().sum(dim=1) * rounding + orthonormality_defect(V) * d.norm(dim=1, keepdim=True)
        measured.append(elementwise(torch.relu(-(d @ V.T)), bound, f"{trial.case.label}, {name}", scale=largest))
    return worst(measured, occurred={"vanilla moved hack-ward": int(hackward.sum())})


@invariant(
    "optimizer.update_leak", theorem="T11, T12", capability="routed_step", applies=removes_the_component,
    events=("vanilla moved hack-ward",),
)  # fmt: skip
def update_leak(trial: StepTrial) -> Measurement:
    """No single update of the deployed vector is hack-ward.

    Fails when: a step moves the deployed model toward the hack although its gradient did not.

    Likely cause: a preconditioner that turns the kept gradient, weight decay that undoes an earlier anti-hack move,
    or a split of the displacement, which bounds the total and not each step.
    """
    split, vanilla = trial.run(trial.splitting), trial.run("none")
    rounding = 2 * drift(trial, split.deployed, split.quarantine)
    return leak(trial, split.deployed.updates, vanilla.deployed.updates, rounding)


@invariant(
    "optimizer.displacement_leak", theorem="T11, T12", capability="routed_step", applies=removes_the_component,
    events=("vanilla moved hack-ward",),
)  # fmt: skip
def displacement_leak(trial: StepTrial) -> Measurement:
    """The deployed vector is never hack-ward of where it started.

    Fails when: the deployed model has learned a part of the hack.

    Likely cause: updates that leak and add up (a preconditioner or weight decay), although every gradient was split.
    """
    split, vanilla = trial.run(trial.splitting), trial.run("none")
    rounding = 2 * drift(trial, split.deployed, split.quarantine)
    return leak(trial, split.deployed.displacements, vanilla.deployed.displacements, rounding)


@invariant("optimizer.inert_quarantine", theorem="T13", capability="routed_step", events=("steps taken",))
def inert_quarantine(trial: StepTrial) -> Measurement | None:
    """Under none and erase the quarantine has no gradient (None, not zeros) and never moves.

    Fails when: an arm without routing trains the quarantine.

    Likely cause: its gradient is zeros instead of None, so that weight decay, momentum or noise moves it.
    """
    measured = []
    for intervention in ("none", "erase"):
        if intervention not in trial.setting.interventions:
            continue
        trajectory = trial.run(intervention)
        for name, path in trajectory.quarantine.items():
            measured.append(same_bits(path, torch.zeros_like(path), f"{intervention}, {trial.case.label}, {name}"))
        for step, (_, fed) in enumerate(trajectory.fed or []):
            for name in (name for name, g in fed.items() if g is not None):
                where = f"{intervention}, {trial.case.label}, {name}, step {step}: its gradient is not None"
                measured.append(Measurement(1.0, 0.0, where))
    return worst(measured, occurred={"steps taken": trial.case.steps}) if measured else None


@invariant(
    "optimizer.none_ignores_basis", theorem="T13", capability="routed_step", applies=runs("none"),
    events=("another basis tried",),
)  # fmt: skip
def none_ignores_basis(trial: StepTrial) -> Measurement:
    """Vanilla training does not depend on V, bit for bit.

    Fails when: measuring or preparing the split changes the arm that must not split.

    Likely cause: the gradient is split and put together again under none.
    """
    flipped = {name: -V.roll(1, dims=1) for name, V in trial.basis.items()}
    other = trial.advance(trial.fresh("none", max_norm=trial.max_norm, basis=flipped), trial.gradients)
    return _same_runs(trial, trial.run("none"), other, "another basis tried")


@invariant("optimizer.deterministic", theorem="T14", capability="routed_step", events=("run twice",))
def deterministic(trial: StepTrial) -> Measurement:
    """The same start, gradients and basis give the same bits.

    Fails when: a run cannot be repeated.

    Likely cause: state shared between loops, random numbers drawn inside the step, or an argument kept and changed.
    """
    intervention = trial.setting.interventions[-1]
    # Both anew: the remembered run may have drawn its random numbers from the same seed as this check.
    once, again = (trial.advance(trial.fresh(intervention, max_norm=trial.max_norm), trial.gradients) for _ in range(2))
    return _same_runs(trial, once, again, "run twice")


def _same_runs(trial: StepTrial, a: Trajectory, b: Trajectory, event: str, *, since: int = 0) -> Measurement:
    """After every step of b the bits of a, whose first `since` steps b has not taken."""
    measured = (
        same_bits(p[1 + since : since + len(other[name])], other[name][1:], f"{trial.case.label}, {kind} {name}")
        for kind, one, other in (("deployed", a.deployed, b.deployed), ("quarantine", a.quarantine, b.quarantine))
        for name, p in one.items()
    )
    return worst(measured, occurred={event: 1})


@invariant("optimizer.resumption", theorem="T14", capability="routed_step", events=("resumed",))
def resumption(trial: StepTrial) -> Measurement | None:
    """Saved at a step and resumed in a fresh loop, training goes on bit for bit as if it had never stopped.

    The fresh loop is made at another start, so that a start which was not saved shows.

    Fails when: a checkpoint does not hold all that the step needs.

    Likely cause: moments, the start or the unsplit point are not saved, or restored to another parameter.
    """
    intervention = trial.setting.interventions[-1]
    half = trial.case.steps // 2
    first = trial.fresh(intervention, max_norm=trial.max_norm)
    if first.state_dict is None or first.load_state_dict is None:
        return None
    trial.advance(first, trial.gradients[:half])
    saved = trial.saved(first)
    elsewhere = replace(trial.case, start={name: p + 1 for name, p in trial.case.start.items()})
    second = replace(trial, case=elsewhere).fresh(intervention, max_norm=trial.max_norm)
    assert second.load_state_dict is not None
    second.load_state_dict(saved)
    resumed = trial.advance(second, trial.gradients[half:])
    return _same_runs(trial, trial.run(intervention), resumed, "resumed", since=half)


@invariant("optimizer.nonfinite_gradient", theorem="T14", capability="routed_step", events=("non-finite gradient fed",))
def nonfinite_gradient(trial: StepTrial) -> Measurement:
    """A NaN or infinite gradient is refused or its step skipped; no trace of it reaches the parameters.

    Fails when: one bad gradient changes the vectors, at once or through the optimizer's state.

    Likely cause: gradients are not checked before moments are updated or vectors are written.
    """
    intervention = trial.setting.interventions[-1]
    by_rows = sorted(trial.basis, key=lambda name: trial.basis[name].shape[0])
    at = min(1, trial.case.steps - 1)
    measured = []
    for module, value in product({by_rows[0]: None, by_rows[-1]: None}, (float("nan"), float("inf"))):
        stepper = trial.fresh(intervention, max_norm=trial.max_norm)
        trial.advance(stepper, trial.gradients[:at])
        poisoned = {name: g.clone() for name, g in trial.gradients[at].items()}
        poisoned[module][0] = value
        with suppress(Exception):  # refused: any exception will do, what counts is that nothing changed
            trial.advance(stepper, [poisoned])
        after = trial.advance(stepper, trial.gradients[at : at + 1])
        same = _same_runs(trial, trial.run(intervention), after, "non-finite gradient fed", since=at)
        measured.append(replace(same, fed=f"with {value} fed to {module} at step {at}"))
    return worst(measured)


@invariant(
    "optimizer.empty_module", theorem="T10", capability="routed_step", applies=treats_empty_modules_alike,
    events=("module without a basis moved",),
)  # fmt: skip
def empty_module(trial: StepTrial) -> Measurement | None:
    """A module without hack directions trains under route as it does under vanilla, and its quarantine stays zero.

    Fails when: modules with k = 0 are skipped, or changed.

    Likely cause: a loop over the modules of the basis instead of the modules of the model.
    """
    empty = [name for name, V in trial.basis.items() if not V.any()]
    if not empty:
        return None
    route, vanilla = trial.run("route"), trial.run("none")
    deployed, expected = (Path({name: path[name] for name in empty}) for path in (route.deployed, vanilla.deployed))
    bound = drift(trial, route.deployed, vanilla.deployed)
    if trial.setting.clip == "joint":
        bound += trial.norm_rounding * max(deployed.size, expected.size)
    moved = {"module without a basis moved": expected.distance > 0}
    zeros = (
        same_bits(q, torch.zeros_like(q), f"{trial.case.label}, {name}")
        for name, q in route.quarantine.items()
        if name in empty
    )
    return worst([compared(trial, deployed, expected, bound, moved), *zeros])
