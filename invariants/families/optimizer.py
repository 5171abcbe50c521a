"""optimizer.*: what whole training runs keep, with the optimizer's state in them.

Every check replays a subject on recorded gradients (open loop): what the arms would have sampled is not its matter.
"""

from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor

from invariants.bounds import gamma, orthonormality_defect, trajectory_error
from invariants.families.clip import clip_rounding
from invariants.hypotheses import (
    can_keep_the_sum,
    can_match_erase,
    removes_the_component,
    runs,
    treats_empty_modules_alike,
)
from invariants.measurement import Measurement, elementwise, same_bits, worst
from invariants.registry import invariant
from invariants.trials import StepTrial, Trajectory


def drift(trial: StepTrial, *trajectories: list[dict[str, Tensor]]) -> float:
    """Rounding that two runs may gather which are equal in exact arithmetic."""
    moved = max(trial.moved(t) for t in trajectories)
    return trajectory_error(trial.case.steps, trial.width, moved, trial.size(*trajectories), trial.dtype)


def compared(
    trial: StepTrial, a: list[dict[str, Tensor]], b: list[dict[str, Tensor]], bound: float, **events: int
) -> Measurement:
    """Two lists over steps of module -> (r,), step by step."""
    learned = trial.distance(b)
    measured = (
        elementwise(p - y[name], bound, f"{trial.case.label}, step {step}, {name}", scale=learned)
        for step, (x, y) in enumerate(zip(a, b, strict=True))
        for name, p in x.items()
    )
    return worst(measured, **events)


def happened(trial: StepTrial, route: Trajectory) -> dict[str, int]:
    """Events that make a comparison of arms mean something."""
    moved = any(bool(q.any()) for q in route.quarantine[-1].values())
    return {
        "something_removed": trial.removed_something,
        "quarantine_moved": int(moved),
        "clip_fired": trial.steps_clipped,
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
    return compared(trial, route.combined, vanilla.combined, bound, **happened(trial, route))


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
    return compared(trial, route.deployed, erase.deployed, bound, **happened(trial, route))


@invariant(
    "optimizer.span", theorem="T11, T12", capability="routed_step", applies=runs("route"), events=("quarantine moved",)
)
def span(trial: StepTrial) -> Measurement:
    """The quarantine lies in the span of V, so that deleting it deletes nothing else.

    Fails when: the quarantine has learned along directions that are not in the basis.

    Likely cause: an optimizer with a preconditioner of its own for the quarantine (AdamW turns the direction).
    """
    route = trial.run("route")
    rounding, learned = drift(trial, route.quarantine, route.deployed), trial.distance(route.quarantine)
    events = happened(trial, route)
    measured = []
    for step, quarantine in enumerate(route.quarantine):
        for name, q in quarantine.items():
            V = trial.basis[name]
            through = rounding * (1 + float((V.abs().T @ V.abs()).sum(dim=1).max()))
            arbiter = gamma(sum(V.shape) + 2, torch.float64) * float(q.abs().max() * (1 + V.abs().sum()))
            bound = through + arbiter + orthonormality_defect(V) * float(q.norm())
            where = f"{trial.case.label}, step {step}, {name}"
            measured.append(elementwise(q - V.T @ (V @ q), bound, where, scale=learned))
    return worst(measured, **events)


def leak(
    trial: StepTrial,
    moves: list[dict[str, Tensor]],
    vanillas: list[dict[str, Tensor]],
    rounding: float,
) -> Measurement:
    """The largest hack-ward coefficient relu(V(-move)), against what rounding can put there, beside vanilla's."""
    measured = []
    hackwards = [torch.relu(-(trial.basis[name] @ d)) for move in vanillas for name, d in move.items()]
    vanilla = max(float(c.max()) for c in hackwards if c.numel())
    events = {"vanilla_moved_hack-ward": sum(bool(c.any()) for c in hackwards)}
    for step, move in enumerate(moves):
        for name, d in move.items():
            V = trial.basis[name]
            bound = V.abs().sum(dim=1) * rounding + orthonormality_defect(V) * d.norm()
            hackward = torch.relu(-(V @ d))
            where = f"{trial.case.label}, step {step}, {name}"
            measured.append(elementwise(hackward, bound, where, scale=vanilla))
    return worst(measured, **events)


def updates(trial: StepTrial, trajectory: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """What each step added."""
    before = [trial.start, *trajectory[:-1]]
    return [{name: p - b[name] for name, p in a.items()} for b, a in zip(before, trajectory, strict=True)]


def displacements(trial: StepTrial, trajectory: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """What all steps so far added."""
    return [{name: p - trial.start[name] for name, p in a.items()} for a in trajectory]


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
    route, vanilla = trial.run("route"), trial.run("none")
    rounding = 2 * drift(trial, route.deployed, route.quarantine)
    return leak(trial, updates(trial, route.deployed), updates(trial, vanilla.deployed), rounding)


@invariant(
    "optimizer.displacement_leak", theorem="T11, T12", capability="routed_step", applies=removes_the_component,
    events=("vanilla moved hack-ward",),
)  # fmt: skip
def displacement_leak(trial: StepTrial) -> Measurement:
    """The deployed vector is never hack-ward of where it started.

    Fails when: the deployed model has learned a part of the hack.

    Likely cause: updates that leak and add up (a preconditioner or weight decay), although every gradient was split.
    """
    route, vanilla = trial.run("route"), trial.run("none")
    rounding = 2 * drift(trial, route.deployed, route.quarantine)
    return leak(trial, displacements(trial, route.deployed), displacements(trial, vanilla.deployed), rounding)


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
        for step, quarantine in enumerate(trajectory.quarantine):
            for name, q in quarantine.items():
                where = f"{intervention}, {trial.case.label}, step {step}, {name}"
                measured.append(same_bits(q, torch.zeros_like(q), where))
                if trajectory.quarantine_grad is not None and trajectory.quarantine_grad[step].get(name) is not None:
                    measured.append(Measurement(1.0, 0.0, f"{where}: its gradient is not None"))
    return worst(measured, steps_taken=trial.case.steps) if measured else None


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
    return _same_runs(trial, trial.run("none"), other, another_basis_tried=1)


@invariant("optimizer.deterministic", theorem="T14", capability="routed_step", events=("run twice",))
def deterministic(trial: StepTrial) -> Measurement:
    """The same start, gradients and basis give the same bits.

    Fails when: a run cannot be repeated.

    Likely cause: state shared between loops, random numbers drawn inside the step, or an argument kept and changed.
    """
    intervention = trial.setting.interventions[-1]
    again = trial.advance(trial.fresh(intervention, max_norm=trial.max_norm), trial.gradients)
    return _same_runs(trial, trial.run(intervention), again, run_twice=1)


def _same_runs(trial: StepTrial, a: Trajectory, b: Trajectory, **events: int) -> Measurement:
    measured = (
        same_bits(p, y[name], f"{trial.case.label}, step {step}, {kind} {name}")
        for kind, one, other in (("deployed", a.deployed, b.deployed), ("quarantine", a.quarantine, b.quarantine))
        for step, (x, y) in enumerate(zip(one, other, strict=True))
        for name, p in x.items()
    )
    return worst(measured, **events)


@invariant("optimizer.resumption", theorem="T14", capability="routed_step", events=("resumed",))
def resumption(trial: StepTrial) -> Measurement | None:
    """Saved at a step and resumed in a fresh loop, training goes on bit for bit as if it had never stopped.

    The fresh loop is made at another start, so that a start which was not saved shows.

    Fails when: a checkpoint does not hold all that the step needs.

    Likely cause: moments, the start, the unsplit point or the basis are not saved, or saved by reference.
    """
    intervention = trial.setting.interventions[-1]
    half = trial.case.steps // 2
    first = trial.fresh(intervention, max_norm=trial.max_norm)
    if first.state_dict is None or first.load_state_dict is None:
        return None
    trial.advance(first, trial.gradients[:half])
    saved = trial.saved(first)
    trial.advance(first, trial.gradients[half:])  # the first loop goes on: what it saved must not follow it
    elsewhere = replace(trial.case, start={name: p + 1 for name, p in trial.case.start.items()})
    second = replace(trial, case=elsewhere, _runs={}).fresh(intervention, max_norm=trial.max_norm)
    assert second.load_state_dict is not None
    second.load_state_dict(saved)
    resumed = trial.advance(second, trial.gradients[half:])
    whole = trial.run(intervention)
    rest = replace(whole, deployed=whole.deployed[half:], quarantine=whole.quarantine[half:])
    return _same_runs(trial, rest, resumed, resumed=1)


@invariant("optimizer.nonfinite_gradient", theorem="T14", capability="routed_step", events=("non-finite gradient fed",))
def nonfinite_gradient(trial: StepTrial) -> Measurement:
    """A NaN or infinite gradient is refused or its step skipped; no trace of it reaches the parameters.

    Fails when: one bad gradient changes the vectors, at once or through the optimizer's state.

    Likely cause: gradients are not checked before moments are updated or vectors are written.
    """
    intervention = trial.setting.interventions[-1]
    module = max(trial.gradients[0], key=lambda name: trial.basis[name].shape[0])
    at = min(1, trial.case.steps - 1)
    here = slice(at, at + 1)
    measured = []
    for value in (float("nan"), float("inf")):
        stepper = trial.fresh(intervention, max_norm=trial.max_norm)
        trial.advance(stepper, trial.gradients[:at])
        poisoned = {name: g.clone() for name, g in trial.gradients[at].items()}
        poisoned[module][0] = value
        with suppress(Exception):  # refused: any exception will do, what counts is that nothing changed
            trial.advance(stepper, [poisoned])
        after = trial.advance(stepper, trial.gradients[here])
        whole = trial.run(intervention)
        expected = replace(whole, deployed=whole.deployed[here], quarantine=whole.quarantine[here])
        measured.append(_same_runs(trial, expected, after, **{"non-finite_gradient_fed": 1}))
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
    deployed, expected = (
        [{name: step[name] for name in empty} for step in run] for run in (route.deployed, vanilla.deployed)
    )
    quarantine = [{name: step[name] for name in empty} for step in route.quarantine]
    moved = sum(bool((p != trial.start[name]).any()) for step in expected for name, p in step.items())
    bound = drift(trial, route.deployed, vanilla.deployed)
    if trial.setting.clip == "joint":
        bound += clip_rounding(trial) * trial.size(deployed, expected)
    return worst([
        compared(trial, deployed, expected, bound, module_without_a_basis_moved=moved),
        *(
            same_bits(q, torch.zeros_like(q), f"{trial.case.label}, {name}")
            for step in quarantine
            for name, q in step.items()
        ),
    ])  # fmt: skip
