"""split.*: the algebra of one gradient and one basis.

c = V g        removed = overshoot V^T gate(c)        kept = g - removed
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from invariants.bounds import gamma, length, removed_error, underflow, underflow_in_removed, unit_roundoff
from invariants.cases import orthonormal_rows
from invariants.hypotheses import (
    is_a_projection,
    is_linear,
    leaves_a_known_remainder,
    of_rule,
    removes_all_at_once,
    restores_the_sum,
)
from invariants.measurement import Measurement, elementwise, worst
from invariants.registry import invariant
from invariants.rescaling import has_a_direction, rescaling_error, squares_are_normal
from invariants.trials import SplitTrial
from reference import split as reference_split


def power_of_two_above(x: float) -> float:
    """The least one that exceeds x, within what a float64 can be divided by; 1 for 0."""
    return 2.0 ** min(max(math.frexp(x)[1], -1021), 1023) if x else 1.0


def remainder_error(trial: SplitTrial) -> Tensor:
    """How far V kept may be from c - c_use, (k,): the error of kept seen through V, and rows that are only nearly
    orthonormal."""
    r, V_abs = trial.g.numel(), trial.given.V_abs
    through = V_abs @ trial.kept_bound  # (k,)
    arbiter = gamma(r + 2, torch.float64) * (V_abs @ (trial.kept.abs() + trial.g.abs()))
    lost = underflow(4 * r + 2, torch.float64)  # of the arbiter's two products
    bound: Tensor = through + trial.given.defect * length(trial.c_use) + arbiter + lost
    return bound


@invariant(
    "split.conservation",
    theorem="T1",
    capability="split",
    applies=of_rule(restores_the_sum),
    events=("something removed",),
)
def conservation(trial: SplitTrial) -> Measurement:
    """kept + removed = g: the two parts add up to the gradient.

    Where kept is computed by subtracting the stored, rounded removed, |fl(kept + removed) - g| is at most
    2 u max(|g|, |removed|, |kept|) elementwise, for all values. Where the product is accumulated a second time, on top
    of g, it is at most gamma(k + 1) (|g| + S) + gamma(k) S + u max with S = |V|^T |c_use|, the computed c_use.

    Fails when: mass of the gradient appears or disappears in the split.

    Likely cause: removed is written before kept in place, or one of the two is scaled and the other is not.
    """
    g, kept, removed = trial.g, trial.kept, trial.removed
    u = unit_roundoff(trial.dtype)
    total = (kept.to(trial.dtype) + removed.to(trial.dtype)).double()
    largest = torch.stack([g.abs(), removed.abs(), kept.abs()]).amax(dim=0)
    if trial.setting.subtracts_stored:
        bound = 2 * u * largest
    else:
        r, k = g.numel(), trial.V.shape[0]
        lost = trial.scale * underflow(2 * r + 2, trial.dtype)
        computed = trial.c_use.abs() + trial.scale * gamma(r + 2, trial.dtype) * (trial.given.V_abs @ g.abs()) + lost
        terms = trial.given.V_abs.T @ computed  # S
        bound = gamma(k + 1, trial.dtype) * (g.abs() + terms) + gamma(k, trial.dtype) * terms + u * largest
    # The subtraction and the sum; or two products of k terms each, on top of that, from the same coefficients.
    tiny = underflow(2 if trial.setting.subtracts_stored else 4 * trial.V.shape[0] + 4, trial.dtype)
    return elementwise(total - g, bound + tiny, trial.case.label, occurred={"something removed": bool(removed.any())})


@invariant(
    "split.pythagoras",
    theorem="T2",
    capability="split",
    applies=of_rule(is_a_projection),
    events=("something removed",),
)
def pythagoras(trial: SplitTrial) -> Measurement:
    """kept and removed are orthogonal, so that their squared norms add up to that of the gradient.

    Fails when: the removed part is no orthogonal projection onto the rows that the gate lets through.

    Likely cause: rows of V that are used without being orthonormal, or a coefficient that is scaled.
    """
    unit = power_of_two_above(trial.given.norm)  # exact to divide by; then no square overflows or underflows
    kept, removed, kept_bound, removed_bound, c_use, g = (
        x / unit for x in (trial.kept, trial.removed, trial.kept_bound, trial.removed_bound, trial.c_use, trial.g)
    )
    errors = (kept.abs() * removed_bound + removed.abs() * kept_bound + removed_bound * kept_bound).sum()
    arbiter = gamma(kept.numel() + 2, torch.float64) * (kept.abs() * removed.abs()).sum()
    bound = errors + arbiter + trial.given.defect * c_use.square().sum() + underflow(2 * g.numel(), torch.float64)
    return elementwise(
        kept @ removed,
        bound,
        trial.case.label,
        scale=g @ g,
        occurred={"something removed": bool(removed.any())},
    )


@invariant(
    "split.one_sided", theorem="T3", capability="split", applies=of_rule(leaves_a_known_remainder),
    events=("positive coefficient", "negative coefficient"),
)  # fmt: skip
def one_sided(trial: SplitTrial) -> Measurement:
    """What is kept has no hack-ward component: V kept is -relu(-c) one-sided, 0 without a gate, -c reversed.

    Fails when: a hack-ward component survives, or an anti-hack component is removed too.

    Likely cause: the sign of V is flipped, the gate is applied to the wrong side, or it is another than was declared.
    """
    expected = trial.c - trial.c_use
    return elementwise(
        trial.V @ trial.kept - expected, remainder_error(trial), trial.case.label, scale=trial.c,
        occurred={"positive coefficient": bool((trial.c > 0).any()), "negative coefficient": bool((trial.c < 0).any())},
    )  # fmt: skip


@invariant(
    "split.idempotence",
    theorem="T4",
    capability="split",
    applies=of_rule(removes_all_at_once),
    events=("something removed",),
)
def idempotence(trial: SplitTrial) -> Measurement:
    """Splitting what was kept removes nothing more.

    Fails when: one pass leaves a part of what it is meant to remove.

    Likely cause: rows of V that overlap, or a component that is only partly removed.
    """
    _, again = trial.split(trial.kept, trial.V)
    left = remainder_error(trial)  # (k,) at most this much of each coefficient survives
    rounding = removed_error(trial.kept, trial.V, trial.scale, trial.dtype) + trial.subtraction_error(trial.kept)
    bound = trial.scale * (trial.given.V_abs.T @ left) + rounding
    return elementwise(
        again, bound, trial.case.label, scale=trial.removed, occurred={"something removed": bool(trial.removed.any())}
    )


@invariant("split.homogeneity", theorem="T5", capability="split", events=("something removed",))
def homogeneity(trial: SplitTrial) -> Measurement | None:
    """A gradient twice as long is split into parts twice as long, bit for bit for powers of two.

    Fails when: the split depends on the length of the gradient and not only on its direction.

    Likely cause: an absolute threshold or epsilon in the gate or in the projection.
    """
    preserves, dtype = trial.setting.preserve_magnitude, trial.dtype
    if preserves and not has_a_direction(trial):
        return None
    lost = trial.scale * trial.given.underflow_in_removed + underflow(1, dtype)  # of either part, (r,)
    if preserves:  # and then made longer with what was kept
        lost = lost * (trial.given.norm / length(trial.g - trial.exact)) + underflow(1, dtype)
    measured = []
    for factor in (2.0, 0.25, 64.0):
        scaled = trial.g * factor
        if not trial.fits(factor * trial.given.norm):
            continue
        if preserves and not (has_a_direction(trial, factor) and squares_are_normal(trial, factor)):
            continue
        if not torch.equal(scaled.to(dtype).double(), scaled):
            continue  # it lost digits below the normal range before the subject saw it
        tiny = lost * (1 + factor)
        for part, at_one in zip(trial.split(scaled, trial.V), trial.parts, strict=True):
            one = elementwise(part - factor * at_one, tiny, f"{trial.case.label}, times {factor:g}")
            measured.append(replace(one, fed=f"times {factor:g}"))
    return worst(measured, occurred={"something removed": bool(trial.removed.any())}) if measured else None


@invariant(
    "split.additivity", theorem="T5", capability="split", applies=of_rule(is_linear), events=("something removed",)
)
def additivity(trial: SplitTrial) -> Measurement:
    """A gate that is linear splits a sum into the sums of the parts.

    Fails when: a gate that is declared linear is not.

    Likely cause: a rectified gate under the name of no_gate or reverse.
    """
    g, V, u = trial.g, trial.V, unit_roundoff(trial.dtype)
    other = trial.g.roll(1)
    total = (g + other).to(trial.dtype).double()  # what the subject gets, rounded
    V_abs = trial.given.V_abs
    through = trial.scale * (V_abs.T @ (V_abs @ (u * total.abs())))
    rounding = sum(
        (removed_error(x, V, trial.scale, trial.dtype) + trial.subtraction_error(x) for x in (g, other, total)),
        start=torch.zeros_like(g),
    )
    removed_bound = rounding + through + gamma(2, torch.float64) * trial.scale * V_abs.T @ (V_abs @ total.abs())
    kept_bound = (
        removed_bound + 4 * u * (g.abs() + other.abs() + total.abs() + removed_bound) + underflow(3, trial.dtype)
    )
    parts, others, totals = trial.parts, trial.split(other, V), trial.split(total, V)
    measured = (
        elementwise(whole - a - b, bound + 4 * u * (a.abs() + b.abs()), trial.case.label, scale=trial.removed)
        for whole, a, b, bound in zip(totals, parts, others, (kept_bound, removed_bound), strict=True)
    )
    return worst(measured, occurred={"something removed": bool(trial.removed.any())})


@invariant("split.null_baseline", theorem="T6", capability="split", events=("gradients drawn",), per="setting")
def null_baseline(trial: SplitTrial) -> Measurement:
    """Of isotropic noise the split removes a known share: E |removed|^2 / |g|^2 = k/2r one-sided, k/r without a gate.

    Reversed it is 4 k/r; overshoot enters squared. The bound is five standard errors, from the exact second moment:
    with c_i^2 / |g|^2 jointly Dirichlet, E c_i^4 = 3 / r(r+2) and E c_i^2 c_j^2 = 1 / r(r+2) on the sphere.

    Fails when: the split removes more or less of noise than chance gives it.

    Likely cause: rows that are not unit vectors, relu taken after summing over rows, or k counting zero rows.
    """
    n, r, k = 400, 32, 6
    draw = torch.Generator().manual_seed(7)
    V = orthonormal_rows(k, r, draw)
    shares = []
    for _ in range(n):
        g = torch.randn(r, dtype=torch.float64, generator=draw)
        shares.append(float(trial.split(g, V)[1].square().sum() / g.square().sum()))
    if trial.setting.gate == "one_sided":
        mean, second = k / (2 * r), (1.5 * k + k * (k - 1) / 4) / (r * (r + 2))
    else:
        mean, second = k / r, (3 * k + k * (k - 1)) / (r * (r + 2))
    standard_error = math.sqrt((second - mean**2) / n)
    # Rounding moves a share by at most twice the relative error of removed, which is below gamma(r + k + 4) sqrt(k).
    bound = trial.scale**2 * (5 * standard_error + 2 * math.sqrt(k) * gamma(r + k + 4, trial.dtype))
    residual = abs(sum(shares) / n - trial.scale**2 * mean)
    where = f"mean over {n} draws, r={r}, k={k}"
    return Measurement(residual, bound, where, {"gradients drawn": n}, scale=trial.scale**2 * mean)


@invariant("split.span", theorem="T2", capability="split", events=("something removed",))
def span(trial: SplitTrial) -> Measurement:
    """What is removed lies in the span of V.

    Fails when: the removed part has a component that the basis does not.

    Likely cause: another basis for projecting than for expanding, or removed computed as g - kept after rescaling.
    """
    V, removed = trial.V, trial.removed
    outside = removed - V.T @ (V @ removed)
    V_abs = trial.given.V_abs
    through = trial.removed_bound + V_abs.T @ (V_abs @ trial.removed_bound)
    arbiter = gamma(sum(V.shape) + 2, torch.float64) * (removed.abs() + V_abs.T @ (V_abs @ removed.abs()))
    arbiter = arbiter + underflow_in_removed(V, torch.float64)
    bound = through + arbiter + trial.given.defect * length(trial.c_use)
    return elementwise(
        outside, bound, trial.case.label, scale=removed, occurred={"something removed": bool(removed.any())}
    )


@invariant("split.matches_reference", theorem="T1", capability="split", events=("something removed",))
def matches_reference(trial: SplitTrial) -> Measurement | None:
    """Both parts equal the specification's.

    Fails when: the subject computes another split than its setting says.

    Likely cause: another gate, overshoot or orientation than declared.
    """
    exact = reference_split(trial.g, trial.V, trial.setting.rule)
    own = removed_error(trial.g, trial.V, trial.scale, torch.float64)
    removed = elementwise(
        trial.removed - exact.removed, trial.removed_bound + own, trial.case.label, scale=exact.removed,
        occurred={"something removed": bool(exact.removed.any())},
    )  # fmt: skip
    if not trial.setting.preserve_magnitude:
        rounding = own + unit_roundoff(torch.float64) * (trial.g.abs() + exact.removed.abs())  # of the exact kept
        bound = trial.kept_bound + rounding
        return worst([removed, elementwise(trial.kept - exact.kept, bound, trial.case.label, scale=trial.g)])
    rescaling = rescaling_error(trial)
    if rescaling is None:
        return None
    difference = torch.tensor(length(trial.kept - exact.kept), dtype=torch.float64)
    return worst([removed, elementwise(difference, rescaling, trial.case.label, scale=trial.given.norm)])
