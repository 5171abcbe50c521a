"""optimizer.*, for scripts."""

from contextlib import suppress
from itertools import product
from typing import Any

import torch

from invariants.repro.loops import Make, Vectors, differences, run, specification, splitting, step_of
from invariants.repro.snippet import IMPOSSIBLE, Residuals, snippet
from invariants.repro.split import OWN_DRAWS

DRIFT = "u steps ((4 steps + width) moved + 4 size): what rounding can do to two runs that are equal otherwise"
IMPOSSIBLE["optimizer.constant_calls"] = "it is the loop itself whose calls are counted, and no number that it returned"
BITS = "0: the same bits"
IMPOSSIBLE |= {f"optimizer.noise_{what}": OWN_DRAWS for what in ("drift", "rectified", "total")}
Gradients = list[Vectors]


@snippet("optimizer.keeps_sum", allows=DRIFT)
def keeps_sum(make: Make, start: Vectors, basis: Vectors, gradients: Gradients, max_norm: float | None) -> Residuals:
    """deployed + quarantine under route is where vanilla is."""
    compared = {}
    route = run(make, start, basis, gradients, "route", max_norm)
    vanilla = run(make, start, basis, gradients, "none", max_norm)
    for step, (a, b) in enumerate(zip(route, vanilla, strict=True)):
        for name in start:
            compared[f"deployed + quarantine - vanilla of {name!r}, step {step}"] = a[0][name] + a[1][name] - b[0][name]
    return compared


@snippet("optimizer.erase_match", allows=DRIFT)
def erase_match(make: Make, start: Vectors, basis: Vectors, gradients: Gradients, max_norm: float | None) -> Residuals:
    """The deployed vector under route is the one under erase."""
    compared = {}
    route = run(make, start, basis, gradients, "route", max_norm)
    erase = run(make, start, basis, gradients, "erase", max_norm)
    for step, (a, b) in enumerate(zip(route, erase, strict=True)):
        for name in start:
            compared[f"route's deployed - erase's of {name!r}, step {step}"] = a[0][name] - b[0][name]
    return compared


@snippet("optimizer.span", allows=f"{DRIFT}, seen through 1 + |V|^T |V|")
def span(make: Make, start: Vectors, basis: Vectors, gradients: Gradients, max_norm: float | None) -> Residuals:
    """The quarantine lies in the span of V."""
    compared = {}
    for step, shown in enumerate(run(make, start, basis, gradients, "route", max_norm)):
        for name, q in shown[1].items():
            V = basis[name].double()
            compared[f"quarantine off the span of {name!r}, step {step}"] = q - V.T @ (V @ q)
    return compared


def hackward(paths: dict[str, list[Any]], basis: Vectors, *, updates: bool) -> Residuals:
    """relu(-V move), of each update or of the whole way so far."""
    compared = {}
    for name, path in paths.items():
        for step in range(1, len(path)):
            move = path[step] - path[step - 1 if updates else 0]
            compared[f"hack-ward move of {name!r}, step {step - 1}"] = torch.relu(-(basis[name].double() @ move))
    return compared


@snippet("optimizer.update_leak", allows=f"twice |V| times {DRIFT}")
def update_leak(
    make: Make, start: Vectors, basis: Vectors, gradients: Gradients, max_norm: float | None, arms: list[str]
) -> Residuals:
    """No update of the deployed vector is hack-ward."""
    split = run(make, start, basis, gradients, splitting(arms), max_norm)
    paths = {name: [p.double(), *(shown[0][name] for shown in split)] for name, p in start.items()}
    return hackward(paths, basis, updates=True)


@snippet("optimizer.displacement_leak", allows=f"twice |V| times {DRIFT}")
def displacement_leak(
    make: Make, start: Vectors, basis: Vectors, gradients: Gradients, max_norm: float | None, arms: list[str]
) -> Residuals:
    """The deployed vector is never hack-ward of its start."""
    split = run(make, start, basis, gradients, splitting(arms), max_norm)
    paths = {name: [p.double(), *(shown[0][name] for shown in split)] for name, p in start.items()}
    return hackward(paths, basis, updates=False)


@snippet("optimizer.inert_quarantine", allows=BITS)
def inert_quarantine(
    make: Make, start: Vectors, basis: Vectors, gradients: Gradients, max_norm: float | None, arms: list[str]
) -> Residuals:
    """Under none and erase the quarantine has no gradient and stays zero."""
    compared = {}
    for arm in (arm for arm in ("none", "erase") if arm in arms):
        for step, shown in enumerate(run(make, start, basis, gradients, arm, max_norm)):
            for name, q in shown[1].items():
                compared[f"quarantine of {name!r} under {arm}, step {step}"] = q
                has_one = shown[3] is not None and shown[3].get(name) is not None
                compared[f"1 if the quarantine of {name!r} has a gradient under {arm}, step {step}"] = torch.tensor(
                    float(has_one)
                )
    return compared


@snippet("optimizer.none_ignores_basis", allows=BITS)
def none_ignores_basis(
    make: Make, start: Vectors, basis: Vectors, gradients: Gradients, max_norm: float | None
) -> Residuals:
    """Vanilla training does not depend on V; the other basis is -V, rolled by one."""
    flipped = {name: -V.roll(1, dims=1) for name, V in basis.items()}
    other = run(make, start, flipped, gradients, "none", max_norm)
    return differences(run(make, start, basis, gradients, "none", max_norm), other)


@snippet("optimizer.deterministic", allows=BITS)
def deterministic(
    make: Make, start: Vectors, basis: Vectors, gradients: Gradients, max_norm: float | None, arms: list[str]
) -> Residuals:
    """The same run twice gives the same bits."""
    again = run(make, start, basis, gradients, arms[-1], max_norm)
    return differences(again, run(make, start, basis, gradients, arms[-1], max_norm))


@snippet("optimizer.resumption", allows=BITS)
def resumption(
    make: Make, start: Vectors, basis: Vectors, gradients: Gradients, max_norm: float | None, arms: list[str]
) -> Residuals:
    """Saved half-way and resumed in a loop that began elsewhere, training goes on as if it had not stopped."""
    half = len(gradients) // 2
    elsewhere = {name: (p.double() + 1).to(p.dtype) for name, p in start.items()}
    first = make(dict(start), dict(basis), intervention=arms[-1], max_norm=max_norm)
    for g in gradients[:half]:
        step_of(first, g)
    saved = first.state_dict()
    second = make(elsewhere, dict(basis), intervention=arms[-1], max_norm=max_norm)
    second.load_state_dict(saved)
    resumed = [step_of(second, g) for g in gradients[half:]]
    return differences(resumed, run(make, start, basis, gradients, arms[-1], max_norm), since=half)


@snippet("optimizer.nonfinite_gradient", allows=BITS)
def nonfinite_gradient(
    make: Make, start: Vectors, basis: Vectors, gradients: Gradients, max_norm: float | None, arms: list[str]
) -> Residuals:
    """After a step on NaN or infinity, training goes on as if that step had not been asked for."""
    by_rows = sorted(basis, key=lambda name: basis[name].shape[0])
    at = min(1, len(gradients) - 1)
    compared: Residuals = {}
    untouched = None
    for name, value in product({by_rows[0]: None, by_rows[-1]: None}, (float("nan"), float("inf"))):
        loop = make(dict(start), dict(basis), intervention=arms[-1], max_norm=max_norm)
        for g in gradients[:at]:
            step_of(loop, g)
        poisoned = {module: g.clone() for module, g in gradients[at].items()}
        poisoned[name][0] = value
        with suppress(Exception):  # a loop may refuse it
            step_of(loop, poisoned)
        after = [step_of(loop, gradients[at])]
        untouched = untouched or run(make, start, basis, gradients, arms[-1], max_norm)
        found = differences(after, untouched, since=at)
        compared |= {f"after {value} in {name!r}, {label}": d for label, d in found.items()}
    return compared


@snippet("optimizer.empty_module", allows=f"{DRIFT}; the quarantine: 0")
def empty_module(make: Make, start: Vectors, basis: Vectors, gradients: Gradients, max_norm: float | None) -> Residuals:
    """A module without hack directions trains as under vanilla, and its quarantine stays zero."""
    compared: Residuals = {}
    route = run(make, start, basis, gradients, "route", max_norm)
    vanilla = run(make, start, basis, gradients, "none", max_norm)
    for step, (a, b) in enumerate(zip(route, vanilla, strict=True)):
        for name in (name for name, V in basis.items() if not V.any()):
            compared[f"deployed - vanilla of {name!r}, step {step}"] = a[0][name] - b[0][name]
            compared[f"quarantine of {name!r}, step {step}"] = a[1][name]
    return compared


@snippet("optimizer.matches_reference", allows=f"{DRIFT}, and what the rounding of the fed gradients does to a step")
def matches_reference(
    make: Make,
    start: Vectors,
    basis: Vectors,
    gradients: Gradients,
    max_norm: float | None,
    arms: list[str],
    setting: dict[str, Any],
) -> Residuals:
    """Both vectors are where the specification's are, under every intervention."""
    compared: Residuals = {}
    for arm in arms:
        own = run(make, start, basis, gradients, arm, max_norm)
        exact = specification(start, basis, gradients, arm, max_norm, setting)
        compared |= {f"{arm}: {label}": d for label, d in differences(own, exact).items()}
    return compared


@snippet("optimizer.accumulation", allows=DRIFT)
def accumulation(
    make: Make, start: Vectors, basis: Vectors, gradients: Gradients, max_norm: float | None, arms: list[str]
) -> Residuals:
    """Micro-batches of 2 g, -2 g and g give the run of their sum."""
    loop = make(dict(start), dict(basis), intervention=arms[-1], max_norm=max_norm)
    parts = []
    for g in gradients:
        for factor in (2.0, -2.0):
            loop.accumulate({name: factor * t for name, t in g.items()})
        parts.append(step_of(loop, g))
    return differences(parts, run(make, start, basis, gradients, arms[-1], max_norm))


@snippet("optimizer.per_module", allows=DRIFT)
def per_module(make: Make, start: Vectors, basis: Vectors, gradients: Gradients) -> Residuals:
    """A module that is trained alone goes where it goes among others."""
    compared = {}
    together = run(make, start, basis, gradients, "none", None)
    for name in start:
        one = {name: start[name]}, {name: basis[name]}, [{name: g[name]} for g in gradients]
        for step, (a, b) in enumerate(zip(run(make, *one, "none", None), together, strict=True)):
            compared[f"{name!r} alone - among others, step {step}"] = a[0][name] - b[0][name]
    return compared


@snippet("optimizer.no_ratchet", allows=f"|V| times 1 + scale times {DRIFT}")
def no_ratchet(
    make: Make, start: Vectors, basis: Vectors, gradients: Gradients, max_norm: float | None, arms: list[str]
) -> Residuals:
    """On gradients in pairs g, -g the deployed vector is along V never farther from its start than vanilla's."""
    compared = {}
    pairs = [
        {name: g if step % 2 == 0 else -g for name, g in gradients[step // 2].items()} for step in range(len(gradients))
    ]
    split = run(make, start, basis, pairs, splitting(arms), max_norm)
    vanilla = run(make, start, basis, pairs, "none", max_norm)
    for step, (a, b) in enumerate(zip(split, vanilla, strict=True)):
        for name, p in start.items():
            away, far = ((basis[name].double() @ (arm[0][name] - p.double())).abs() for arm in (a, b))
            compared[f"|V d| beyond vanilla's in {name!r}, step {step}"] = torch.relu(away - far)
    return compared


def refreshed(
    make: Make,
    start: Vectors,
    basis: Vectors,
    other_basis: Vectors,
    gradients: Gradients,
    max_norm: float | None,
    arm: str = "route",
) -> list[list[Any]]:
    """What an arm shows after each step, with the other basis from half-way on."""
    loop = make(dict(start), dict(basis), intervention=arm, max_norm=max_norm)
    before = [step_of(loop, g) for g in gradients[: len(gradients) // 2]]
    loop.refresh({name: V.clone() for name, V in other_basis.items()})
    return [*before, *(step_of(loop, g) for g in gradients[len(gradients) // 2 :])]


@snippet("optimizer.refresh_update_leak", allows=f"twice |V| times {DRIFT}")
def refresh_update_leak(
    make: Make,
    start: Vectors,
    basis: Vectors,
    other_basis: Vectors,
    gradients: Gradients,
    max_norm: float | None,
    arms: list[str],
) -> Residuals:
    """After a refresh no update is hack-ward along the new basis."""
    half = len(gradients) // 2
    split = refreshed(make, start, basis, other_basis, gradients, max_norm, splitting(arms))
    paths = {name: [p.double(), *(shown[0][name] for shown in split)][half:] for name, p in start.items()}
    return hackward(paths, other_basis, updates=True)


@snippet("optimizer.refresh_displacement_leak", allows=f"twice |V| times {DRIFT}")
def refresh_displacement_leak(
    make: Make,
    start: Vectors,
    basis: Vectors,
    other_basis: Vectors,
    gradients: Gradients,
    max_norm: float | None,
    arms: list[str],
) -> Residuals:
    """After a refresh the deployed vector is not hack-ward of its start along the new basis."""
    half = len(gradients) // 2
    split = refreshed(make, start, basis, other_basis, gradients, max_norm, splitting(arms))
    paths = {name: [p.double(), *(shown[0][name] for shown in split[half:])] for name, p in start.items()}
    return hackward(paths, other_basis, updates=False)


@snippet("optimizer.refresh_span", allows=f"{DRIFT}, seen through 1 + |V|^T |V|")
def refresh_span(
    make: Make, start: Vectors, basis: Vectors, other_basis: Vectors, gradients: Gradients, max_norm: float | None
) -> Residuals:
    """After a refresh the quarantine lies in the span of the new basis."""
    compared = {}
    route, half = refreshed(make, start, basis, other_basis, gradients, max_norm), len(gradients) // 2
    for step, shown in enumerate(route[half:], start=half):
        for name, q in shown[1].items():
            V = other_basis[name].double()
            compared[f"quarantine off the new span of {name!r}, step {step}"] = q - V.T @ (V @ q)
    return compared


@snippet("optimizer.gate_starts_closed", allows=BITS)
def gate_starts_closed(
    make: Make,
    start: Vectors,
    basis: Vectors,
    other_basis: Vectors,
    gradients: Gradients,
    max_norm: float | None,
    setting: dict[str, Any],
) -> Residuals:
    """At the first step, and at the first after a refresh, nothing is removed."""
    compared = {}
    route = refreshed(make, start, basis, other_basis, gradients, max_norm)
    for step in (0, len(gradients) // 2):
        for name, q in route[step][1].items():
            if setting["space"] == "gradient":
                fed = route[step][3][name]
                removed = torch.zeros_like(q) if fed is None else fed
            else:
                removed = q - route[step - 1][1][name] if setting["space"] == "update" and step else q
            compared[f"removed of {name!r}, step {step}"] = removed
    return compared


@snippet("optimizer.drift_gauge", allows="the rounding of V d, of d off V and of V q, carried through the quotient")
def drift_gauge(make: Make, start: Vectors, basis: Vectors, gradients: Gradients, max_norm: float | None) -> Residuals:
    """The logged gauges are mean |V d| / mean |d off V| and -<V d, V q> / |V q|^2."""
    compared = {}
    for step, shown in enumerate(run(make, start, basis, gradients, "route", max_norm)):
        along, off, routed = [], [], []
        for name, V in ((name, V.double()) for name, V in basis.items() if V.any()):
            d = shown[0][name] - start[name].double()
            along.append(V @ d)
            off.append(d - V.T @ (V @ d))
            routed.append(V @ shown[1][name])
        c, rest, h = (torch.cat(part) for part in (along, off, routed))
        mean, beside, square = c.abs().mean(), rest.abs().mean(), h @ h
        if "drift_ratio" in shown[4] and beside > 0:
            compared[f"drift_ratio, step {step}"] = shown[4]["drift_ratio"] - mean / beside
        if "drift_opposition" in shown[4] and square > 0:
            compared[f"drift_opposition, step {step}"] = shown[4]["drift_opposition"] + c @ h / square
    return compared
