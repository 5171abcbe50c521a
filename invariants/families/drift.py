"""optimizer.*: what noise does to the deployed vector along V, and the gauges that warn of it without labels."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from invariants.bounds import gamma, orthonormality_defect, underflow, unit_roundoff
from invariants.families.optimizer import drift as rounding_of
from invariants.hypotheses import cannot_ratchet, runs, strength
from invariants.measurement import Measurement, elementwise, worst
from invariants.registry import invariant
from invariants.trials import StepTrial
from reference import Intervention
from reference.drift import drift


@invariant(
    "optimizer.no_ratchet", theorem="T20", capability="routed_step", applies=cannot_ratchet,
    events=("vanilla turned back",),
)  # fmt: skip
def no_ratchet(trial: StepTrial) -> Measurement:
    """Along every axis of V the deployed vector is at most as far from its start as vanilla's, after every step.

    The gradients come in pairs g, -g, so that vanilla returns to where it was, or swings about it with momentum, while
    whoever adds up rectified parts goes on by lr |c| at every pair.

    Fails when: noise that teaches nothing drives the deployed model along V, the farther the longer it trains.

    Likely cause: a one-sided gate on gradients or updates, whose relu has a positive mean on noise.
    """
    paired = [
        {name: (g if step % 2 == 0 else -g) for name, g in trial.gradients[step // 2].items()}
        for step in range(trial.case.steps)
    ]
    arms: tuple[Intervention, ...] = (trial.splitting, "none")
    split, vanilla = (trial.advance(trial.fresh(arm, max_norm=trial.max_norm), paired) for arm in arms)
    rounding = (1 + strength(trial.setting.rule)) * rounding_of(
        trial, split.deployed, split.quarantine, vanilla.deployed
    )
    measured, turned = [], 0
    for name, V in trial.basis.items():
        d, reference = split.deployed.displacements[name], vanilla.deployed.displacements[name]  # (steps, r)
        away, far = (d @ V.T).abs(), (reference @ V.T).abs()  # (steps, k)
        sizes = d.norm(dim=1, keepdim=True) + reference.norm(dim=1, keepdim=True)
        bound = V.abs().sum(dim=1) * rounding + orthonormality_defect(V) * sizes
        where, scale = f"{trial.case.label} in pairs, {name}", float(far.max()) if far.numel() else 0.0
        measured.append(elementwise(torch.relu(away - far), bound, where, scale=scale))
        turned += int((far[1:] < far[:-1]).any(dim=1).sum())
    return worst(measured, occurred={"vanilla turned back": turned})


@invariant(
    "optimizer.drift_gauge", theorem="T20", capability="routed_step", applies=runs("route"),
    events=("deployed and quarantine apart",),
    reads="the gauges that it logs: let the step return drift_ratio or drift_opposition in a fifth mapping",
)  # fmt: skip
def drift_gauge(trial: StepTrial) -> Measurement | None:
    """The logged drift gauges are the specification's, of the vectors that the step shows.

    drift_ratio = mean |V d| / mean |d off V| and drift_opposition = -<V d, V q> / |V q|^2, with d = deployed - start
    and q the quarantine. Steps at which rounding leaves a denominator open are not compared.

    Fails when: a run that drifts shows no warning, or a healthy one shows some.

    Likely cause: the last update or the vector itself is gauged instead of the displacement, or a sign is lost.
    """
    route = trial.run("route")
    logged = {name: route.log(name) for name in ("drift_ratio", "drift_opposition")}
    if all(values is None for values in logged.values()):
        return None
    measured, apart = [], 0
    for step in range(trial.case.steps):
        d = {name: path[step] for name, path in route.deployed.displacements.items()}
        q = {name: path[step + 1] for name, path in route.quarantine.items()}
        exact, errors = drift(d, q, trial.basis), gauge_errors(trial, d, q)
        apart += exact.opposition != 0
        for (name, values), value, error in zip(logged.items(), exact, errors, strict=True):
            if values is not None and error < math.inf:
                where = f"{trial.case.label}, step {step}, {name}"
                measured.append(Measurement(abs(values[step] - value), error, where, scale=abs(value)))
    open_everywhere = Measurement(0.0, math.inf, trial.case.label)
    return worst(measured or [open_everywhere], occurred={"deployed and quarantine apart": apart})


class Rounded(NamedTuple):
    """A sum or a norm that a subject computes, and what rounding can do to it."""

    size: float
    error: float


def gauge_errors(trial: StepTrial, d: dict[str, Tensor], q: dict[str, Tensor]) -> tuple[float, float]:
    """What rounding can do to the two gauges; infinite where it can reach a denominator.

    Coefficients of x = d + u|d| are off by gamma(r + 2) |V| |x|, the rest by |V|^T of that and its own gamma(k + 2).
    A quotient a / b of parts that are off by da and db is off by (da + |a / b| db) / (b - db), and a scalar product of
    a and b by |da| |b| + |a| |db| + |da| |db| (Cauchy and Schwarz); the sums themselves add trial.norm_rounding, and
    what underflows.
    """
    along, off, routed = ([torch.zeros(0, 2)] for _ in range(3))
    for name, V in trial.basis.items():
        (k, r), u = V.shape, unit_roundoff(trial.dtype)
        if not V.any():
            continue
        size = V.abs()
        c, h = V @ d[name], V @ q[name]  # (k,)
        c_error, h_error = (gamma(r + 2, trial.dtype) * (size @ x.abs()) for x in (d[name], q[name]))
        c_error = c_error + u * (size @ d[name].abs())
        c_error, h_error = c_error + underflow(r, trial.dtype), h_error + underflow(r, trial.dtype)
        rest = d[name] - V.T @ c  # (r,)
        rest_error = size.T @ c_error + gamma(k + 2, trial.dtype) * (d[name].abs() + size.T @ c.abs())
        for part, x, error in ((along, c, c_error), (off, rest, rest_error), (routed, h, h_error)):
            part.append(torch.stack([x.abs(), error], dim=1))
    n = trial.norm_rounding
    c, rest, h = (torch.cat(part) for part in (along, off, routed))
    on, beside = (Rounded(float(x[:, 0].sum()), float(x[:, 1].sum() + n * x[:, 0].sum())) for x in (c, rest))
    ratio = quotient_error(on, beside) * len(rest) / max(1, len(c))
    a, b = (Rounded(float(x[:, 0].norm()), float(x[:, 1].norm())) for x in (c, h))
    lost = underflow(len(c), trial.wide)
    product = Rounded(
        a.size * b.size, a.error * b.size + a.size * b.error + a.error * b.error + n * a.size * b.size + lost
    )
    square = Rounded(b.size**2, (2 * b.size + b.error) * b.error + n * b.size**2 + lost)
    return ratio, quotient_error(product, square)


def quotient_error(a: Rounded, b: Rounded) -> float:
    """Of a / b; infinite where b is not known to be above 0."""
    if b.size <= 2 * b.error:
        return math.inf
    return (a.error + a.size / b.size * b.error) / (b.size - b.error)
