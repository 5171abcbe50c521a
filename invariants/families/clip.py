"""clip.*: one limit for everything that a step feeds its optimizers.

The checks read the gradients that the optimizers were fed, after the clip; a loop that doesn't show them is told so.
"""

import torch
from torch import Tensor

from invariants.bounds import gamma, length, orthonormality_defect, removed_error, unit_roundoff
from invariants.hypotheses import (
    has_a_clip,
    keeps_the_norm,
    limits_all_that_is_fed,
    limits_the_gradient,
    scales_all_alike,
    scales_both_alike,
    splits_gradients,
    strength,
)
from invariants.measurement import Measurement, elementwise, same_bits, worst
from invariants.registry import invariant
from invariants.trajectory import Trajectory
from invariants.trials import StepTrial

FED = "the gradients that its optimizers were fed: let the step return them as two more mappings"


def fed_at_every_step(trajectory: Trajectory) -> list[Tensor] | None:
    """Everything that each step fed its optimizers, as one long vector; None if the loop does not show it."""
    if trajectory.fed is None:
        return None
    both = [[g for part in sets for _, g in sorted(part.items()) if g is not None] for sets in trajectory.fed]
    return [torch.cat(present) for present in both] if all(both) else None


def beyond(value: float, limit: float) -> float:
    """How far a value is above a limit, at least 0; NaN stays NaN, which no bound allows."""
    excess = value - limit
    return 0.0 if excess <= 0 else excess


def parts_error(trial: StepTrial, step: int, factor: float = 1.0) -> float:
    """Forward error, in norm, of both parts of one step's gradient scaled by `factor` before the split."""
    rule, u = trial.setting.rule, unit_roundoff(trial.dtype)
    scale = strength(rule)
    total = 0.0
    for name, g in trial.gradients[step].items():
        removed = removed_error(factor * g.abs(), trial.basis[name], scale, trial.dtype)
        amplified = factor * (1 + scale) * g.abs()
        total += float(removed.norm()) + float((removed + 2 * u * amplified).norm())
    return total


@invariant(
    "clip.covers_both", theorem="T7", capability="routed_step", applies=limits_all_that_is_fed,
    events=("clip fired",), reads=FED,
)  # fmt: skip
def covers_both(trial: StepTrial) -> Measurement | None:
    """The norm over the deployed and the quarantine gradient together is at most the limit, at every step.

    Fails when: a step feeds its optimizers more than the limit.

    Likely cause: the clip covers the deployed set only, or each set by itself; or it is configured and never called.
    """
    shown = fed_at_every_step(trial.run(trial.splitting))
    if shown is None or trial.max_norm is None:
        return None
    bound = trial.norm_rounding * trial.max_norm
    return worst(
        Measurement(
            beyond(float(v.norm()), trial.max_norm), bound, f"{trial.case.label}, step {step}",
            {"clip fired": int(norm > trial.max_norm)},
            scale=trial.max_norm,
        )
        for step, (v, norm) in enumerate(zip(shown, trial.norms, strict=True))
    )  # fmt: skip


@invariant(
    "clip.reaches_limit",
    theorem="T7",
    capability="routed_step",
    applies=keeps_the_norm,
    events=("clip fired",),
    reads=FED,
)
def reaches_limit(trial: StepTrial) -> Measurement | None:
    """Where the gradient is longer than the limit, what is fed is as long as the limit, and not shorter.

    Fails when: the clip scales by more than it should.

    Likely cause: the quarantine's gradient, equal to the deployed one's before the split, is counted in the norm
    (sqrt 2 too long), the clip is applied twice, or it adds more to the norm than the setting's clip_epsilon.
    """
    shown = fed_at_every_step(trial.run("route"))
    if shown is None or trial.max_norm is None:
        return None
    limit, epsilon, rounding = trial.max_norm, trial.setting.clip_epsilon, trial.norm_rounding
    measured = []
    for step, (v, norm) in enumerate(zip(shown, trial.norms, strict=True)):
        if norm <= limit:
            continue
        split_error = parts_error(trial, step, limit / norm) + _defect(trial) * limit
        bound = limit * (rounding + epsilon / norm) + (split_error if trial.setting.space == "gradient" else 0.0)
        residual = beyond(limit, float(v.norm()))
        where = f"{trial.case.label}, step {step}" + (f", clip_epsilon {epsilon:g}" if epsilon else "")
        measured.append(Measurement(residual, bound, where, {"clip fired": 1}, scale=limit))
    return worst(measured)


def _defect(trial: StepTrial) -> float:
    return max(orthonormality_defect(V) for V in trial.basis.values())


@invariant(
    "clip.common_factor",
    theorem="T8",
    capability="routed_step",
    applies=scales_all_alike,
    events=("clip fired",),
    reads=FED,
)
def common_factor(trial: StepTrial) -> Measurement | None:
    """The clip scales every module and both sets by one and the same factor.

    Fails when: the direction of what is fed changes with the clip.

    Likely cause: a clip per module, per parameter group or per set.
    """
    if trial.direction_is_open:
        return None
    clipped = fed_at_every_step(trial.run("route"))
    free = fed_at_every_step(trial.run("route", clipped=False))
    if clipped is None or free is None or trial.max_norm is None:
        return None
    u, measured = unit_roundoff(trial.dtype), []
    for step, (a, b, norm) in enumerate(zip(clipped, free, trial.norms, strict=True)):
        if a.numel() != b.numel() or float(b.norm()) == 0:
            continue
        factor = float(a @ b / (b @ b))
        length = float(a.norm())
        rounding = (8 * u + gamma(trial.coordinates, torch.float64)) * length
        bound, where = 2 * abs(factor) * parts_error(trial, step) + rounding, f"{trial.case.label}, step {step}"
        fired = norm > trial.max_norm
        measured.append(
            elementwise((a - factor * b).norm(), bound, where, scale=length, occurred={"clip fired": fired})
        )
    return worst(measured)


def _longest_kept(trial: StepTrial) -> float:
    """The largest norm of what the split keeps of all modules' gradients, over the steps."""
    return max(length(torch.cat([kept for kept, _ in parts.values()])) for parts in trial.split_gradients)


@invariant(
    "clip.takes_effect", theorem="T8", capability="routed_step", applies=limits_the_gradient, events=("clip fired",)
)
def takes_effect(trial: StepTrial) -> Measurement | None:
    """A limit far below every gradient's norm changes the run; this can be seen without the gradients that were fed.

    Far below, so that a clip which reads another norm, of a part or of a module, takes effect too. There is nothing to
    see where gradients that are scaled by hand, to that limit, give the same run but for rounding: AdamW takes little
    notice of a common factor, and what reads signs alone of none.

    Fails when: a run with the limit is bit for bit the run without it.

    Likely cause: max_norm is configured and never passed on, or a generator of parameters was exhausted by the norm.
    """
    norms = [norm for norm in trial.norms if norm > 0]
    if trial.max_norm is None or not norms:
        return None
    limit = min(trial.max_norm, *norms) / 2**10
    if _longest_kept(trial) < 2 * limit:
        return None
    free = trial.run("route", clipped=False)
    by_hand = [
        {name: limit / norm * t for name, t in g.items()} if norm else g
        for norm, g in zip(trial.norms, trial.gradients, strict=True)
    ]
    due = trial.advance(trial.fresh("route", max_norm=None), by_hand)
    seen = max(float((p - free.combined[name]).abs().max()) for name, p in due.combined.items())
    if not seen > 4 * unit_roundoff(trial.dtype) * free.combined.size:
        return None
    clipped = trial.advance(trial.fresh("route", max_norm=limit), trial.gradients)
    changed = any(not torch.equal(p, free.combined[name]) for name, p in clipped.combined.items())
    where = f"{trial.case.label}: limit {limit:.3g}, longest gradient {max(trial.norms):.3g}"
    fired = sum(norm > limit for norm in trial.norms)
    return Measurement(0.0 if changed else 1.0, 0.0, where, {"clip fired": fired})


@invariant(
    "clip.inactive_below", theorem="T8", capability="routed_step", applies=has_a_clip, events=("steps below the limit",)
)
def inactive_below(trial: StepTrial) -> Measurement:
    """A limit above every norm changes nothing: the run is the one without a clip, bit for bit.

    Fails when: gradients below the limit are scaled.

    Likely cause: gradients are normalised instead of clipped, or the factor is not capped at 1.
    """
    scale = strength(trial.setting.rule)
    limit = 4 * (1 + scale) * (max(trial.norms) or 1.0)
    intervention = "route" if "route" in trial.setting.interventions else trial.setting.interventions[-1]
    high = trial.advance(trial.fresh(intervention, max_norm=limit), trial.gradients)
    free = trial.run(intervention, clipped=False)
    where = trial.case.label
    pairs = ((high.deployed, free.deployed), (high.quarantine, free.quarantine))
    measured = (same_bits(a[name], b[name], f"{where}, {name}") for a, b in pairs for name in a)
    return worst(measured, occurred={"steps below the limit": trial.case.steps})


@invariant(
    "clip.logged_norms", theorem="T7", capability="routed_step", applies=has_a_clip, events=("clip fired",),
    reads="the norms that it logs: let the step return them as a fifth mapping",
)  # fmt: skip
def logged_norms(trial: StepTrial) -> Measurement | None:
    """The norm that is logged as pre-clip is the accumulated gradient's; the one that is logged as post-clip is that of
    everything that was fed, and at most the limit where one factor covers both sets.

    Fails when: a log shows another gradient's norm than it says.

    Likely cause: the norm is taken after the clip and logged under the name of the norm before it, or only one of the
    two sets is counted.
    """
    run = trial.run(trial.setting.interventions[-1])
    fed, rounding, limit, lost = fed_at_every_step(run), trial.norm_rounding, trial.max_norm, trial.norm_underflow
    pre, post = run.log("grad_norm_pre_clip"), run.log("grad_norm_post_clip")
    measured = []
    for step, norm in enumerate(trial.norms):
        where, size = f"{trial.case.label}, step {step}", min(norm, limit or norm)
        if pre is not None:
            residual = abs(pre[step] - norm)
            measured.append(Measurement(residual, rounding * norm + lost, f"{where}, pre-clip", scale=norm))
        if post is not None and fed is not None:
            length = float(fed[step].norm())
            residual = abs(post[step] - length)
            measured.append(Measurement(residual, rounding * length + lost, f"{where}, post-clip", scale=size))
        if post is not None and limit is not None and scales_both_alike(trial.setting) is None:
            excess = beyond(post[step], limit)
            measured.append(Measurement(excess, rounding * limit, f"{where}, post-clip", scale=limit))
    return worst(measured, occurred={"clip fired": trial.steps_clipped}) if measured else None


@invariant(
    "clip.vanilla_norm", theorem="T7", capability="routed_step", applies=splits_gradients,
    events=("something removed",), reads=FED,
)  # fmt: skip
def vanilla_norm(trial: StepTrial) -> Measurement | None:
    """Without a limit the two fed gradients together are as long as the vanilla gradient.

    Fails when: a logged joint norm is not that of the gradient that was computed.

    Likely cause: the split adds length (rows not orthonormal), or the norm of one set is logged as that of both.
    """
    shown = fed_at_every_step(trial.run("route", clipped=False))
    if shown is None:
        return None
    rounding = trial.norm_rounding
    measured = (
        Measurement(
            abs(float(v.norm()) - norm),
            rounding * norm + parts_error(trial, step) + _defect(trial) * norm,
            f"{trial.case.label}, step {step}",
            scale=norm,
        )
        for step, (v, norm) in enumerate(zip(shown, trial.norms, strict=True))
    )
    return worst(measured, occurred={"something removed": trial.removed_something})
