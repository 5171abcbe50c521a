"""clip.*, and what is logged of a step, for scripts."""

import math
from typing import Any

import torch
from torch import Tensor

from invariants.repro.loops import Make, Vectors, differences, fed, length, run, splitting
from invariants.repro.snippet import Residuals, snippet

NORM = "gamma(2 n + 8) + gamma(8), what the rounding of a norm of n coordinates and of a factor can do, times "


@snippet("clip.covers_both", allows=f"{NORM}the limit")
def covers_both(
    make: Make, start: Vectors, basis: Vectors, gradients: list[Vectors], max_norm: float, arms: list[str]
) -> Residuals:
    """Everything that a step feeds is, together, at most as long as the limit."""
    split = run(make, start, basis, gradients, splitting(arms), max_norm)
    return {f"|fed| - limit, step {step}": torch.relu(fed(shown).norm() - max_norm) for step, shown in enumerate(split)}


@snippet("clip.reaches_limit", allows=f"{NORM}the limit, and the rounding of both parts")
def reaches_limit(make: Make, start: Vectors, basis: Vectors, gradients: list[Vectors], max_norm: float) -> Residuals:
    """Where the gradient is longer than the limit, what is fed is as long as the limit."""
    route = run(make, start, basis, gradients, "route", max_norm)
    return {
        f"limit - |fed|, step {step}": torch.relu(max_norm - fed(shown).norm())
        for step, (shown, g) in enumerate(zip(route, gradients, strict=True))
        if length(g) > max_norm
    }


@snippet("clip.common_factor", allows="twice the rounding of both parts, and 8 u and gamma(n) of the length")
def common_factor(make: Make, start: Vectors, basis: Vectors, gradients: list[Vectors], max_norm: float) -> Residuals:
    """What is fed is one number times what is fed without a limit."""
    compared = {}
    clipped = run(make, start, basis, gradients, "route", max_norm)
    free = run(make, start, basis, gradients, "route", None)
    for step, (one, other) in enumerate(zip(clipped, free, strict=True)):
        a, b = fed(one), fed(other)
        if len(a) == len(b) and b.any():
            compared[f"|fed - factor x fed without a limit|, step {step}"] = (a - float(a @ b / (b @ b)) * b).norm()
    return compared


@snippet("clip.takes_effect", allows="0: two runs that are equal in every bit are one run")
def takes_effect(make: Make, start: Vectors, basis: Vectors, gradients: list[Vectors], max_norm: float) -> Residuals:
    """A limit far below every gradient's norm changes the run, if scaling the gradients by hand does."""
    norms = [float(length(g)) for g in gradients]
    limit = min(max_norm, *(norm for norm in norms if norm > 0)) / 2**10
    by_hand = [
        {n: limit / norm * t for n, t in g.items()} if norm else g for norm, g in zip(norms, gradients, strict=True)
    ]
    free = run(make, start, basis, gradients, "route", None)
    due = run(make, start, basis, by_hand, "route", None)
    clipped = run(make, start, basis, gradients, "route", limit)
    sums = [[{n: s[0][n] + s[1][n] for n in s[0]} for s in arm] for arm in (free, due, clipped)]
    seen, changed = (
        any(not torch.equal(a[n], b[n]) for a, b in zip(sums[0], other, strict=True) for n in a) for other in sums[1:]
    )
    return {"1 if scaling by hand is seen and the limit is not": torch.tensor(float(seen and not changed))}


@snippet("clip.inactive_below", allows="0: the same bits")
def inactive_below(
    make: Make, start: Vectors, basis: Vectors, gradients: list[Vectors], arms: list[str], rule: dict[str, Any]
) -> Residuals:
    """A limit above every norm changes nothing."""
    strength = rule["overshoot"] * (2 if rule["gate"] == "reverse" else 1)
    limit = 4 * (1 + strength) * (max(float(length(g)) for g in gradients) or 1.0)
    arm = "route" if "route" in arms else arms[-1]
    high = run(make, start, basis, gradients, arm, limit)
    return differences(high, run(make, start, basis, gradients, arm, None))


@snippet("clip.logged_norms", allows=f"{NORM}the norm")
def logged_norms(
    make: Make, start: Vectors, basis: Vectors, gradients: list[Vectors], arms: list[str], max_norm: float
) -> Residuals:
    """The logged norms are those of the accumulated gradient, and of everything that was fed."""
    compared = {}
    for step, shown in enumerate(run(make, start, basis, gradients, arms[-1], max_norm)):
        pre, post = (shown[4].get(f"grad_norm_{when}_clip") for when in ("pre", "post"))
        if pre is not None:
            compared[f"logged pre-clip norm - |g|, step {step}"] = pre - length(gradients[step])
        if post is not None:
            if shown[2] is not None:
                compared[f"logged post-clip norm - |fed|, step {step}"] = post - fed(shown).norm()
            compared[f"logged post-clip norm - limit, step {step}"] = torch.relu(torch.tensor(post - max_norm))
    return compared


@snippet("clip.vanilla_norm", allows=f"{NORM}the norm, the rounding of both parts, and V that is not quite orthonormal")
def vanilla_norm(make: Make, start: Vectors, basis: Vectors, gradients: list[Vectors]) -> Residuals:
    """Without a limit what is fed is as long as the gradient."""
    free = run(make, start, basis, gradients, "route", None)
    return {
        f"|fed| - |g|, step {step}": fed(shown).norm() - length(g)
        for step, (shown, g) in enumerate(zip(free, gradients, strict=True))
    }


@snippet("split.cos_pre", allows="gamma(r + 2) |V| |g| / |g|, and the rounding of two norms")
def cos_pre(
    make: Make, start: Vectors, basis: Vectors, gradients: list[Vectors], arms: list[str], max_norm: float | None
) -> Residuals:
    """The logged share is |relu(V g)| / |g|, over the modules with a basis."""
    compared = {}
    covered = {name: V.double() for name, V in basis.items() if len(V)}
    for step, shown in enumerate(run(make, start, basis, gradients, arms[-1], max_norm)):
        g = {name: gradients[step][name].double() for name in covered}
        whole = math.hypot(*(float(t.norm()) for t in g.values()))
        if whole:
            c: Tensor = torch.cat([V @ g[name] for name, V in covered.items()])
            compared[f"cos_pre - |relu(V g)| / |g|, step {step}"] = shown[4]["cos_pre"] - c.relu().norm() / whole
    return compared
