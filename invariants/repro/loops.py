"""What snippets of training loops share: taking steps, and the specification's own."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Vectors = dict[str, Tensor]
Make = Callable[..., Any]


def step_of(loop: Any, g: Vectors) -> list[Any]:
    """[deployed, quarantine, fed to the one, fed to the other, logged] after a step, float64 copies."""
    shown = getattr(loop, "step", loop)({name: t.clone() for name, t in g.items()})
    return [
        {n: p.detach().double().clone() if isinstance(p, Tensor) else p for n, p in part.items()} if part else None
        for part in [*shown, None, None, None][:5]
    ]


def run(
    make: Make, start: Vectors, basis: Vectors, gradients: list[Vectors], intervention: str, max_norm: float | None
) -> list[list[Any]]:
    """What a fresh loop shows after each step."""
    copies = [{name: t.clone() for name, t in tensors.items()} for tensors in (start, basis)]
    loop = make(*copies, intervention=intervention, max_norm=max_norm)
    return [step_of(loop, g) for g in gradients]


def splitting(arms: list[str]) -> str:
    """The arm whose deployed vector is looked at."""
    return "route" if "route" in arms else "erase"


def fed(shown: list[Any]) -> Tensor:
    """Everything that a step fed its optimizers, as one long vector."""
    return torch.cat([g for part in shown[2:4] for _, g in sorted(part.items()) if g is not None])


def length(g: Vectors) -> Tensor:
    """The norm over all modules."""
    norm: Tensor = torch.cat([t.double() for t in g.values()]).norm()
    return norm


def differences(one: list[list[Any]], other: list[list[Any]], since: int = 0) -> Vectors:
    """Both vectors of every module, after every step, less those of the other run `since` steps later."""
    compared = {}
    for step, (a, b) in enumerate(zip(one, other[since:], strict=False)):
        for kind in range(2):
            for name in a[kind]:
                label = f"{('deployed', 'quarantine')[kind]} of {name!r} after step {step + since}"
                compared[label] = a[kind][name] - b[kind][name]
    return compared


def through_the_gate(c: Tensor, gate: str, mean: Tensor | None = None) -> Tensor:
    """Which coefficients are removed; `mean` is the running mean of those before, for the predictable gate."""
    if gate == "predictable":
        return torch.where(torch.zeros_like(c) if mean is None else mean > 0, c, 0.0)
    return {"one_sided": torch.relu(c), "no_gate": c, "reverse": 2 * c}[gate]


def split_parts(g: Vectors, basis: Vectors, rule: dict[str, Any], means: Vectors) -> tuple[Vectors, Vectors]:
    """Kept and removed, module by module; the running means of their coefficients go on."""
    kept, removed = {}, {}
    for name, t in g.items():
        V = basis[name].double()
        c, mean = V @ t, means.get(name)
        removed[name] = rule["overshoot"] * (V.T @ through_the_gate(c, rule["gate"], mean))
        means[name] = 0.1 * c if mean is None else 0.9 * mean + 0.1 * c
        kept[name] = t - removed[name]
        if rule["preserve_magnitude"] and kept[name].any():
            kept[name] = kept[name] * (t.norm() / kept[name].norm())
    return kept, removed


def shortened(max_norm: float | None, *sets: Vectors) -> list[Vectors]:
    """All sets times the one factor that brings their joint norm down to the limit."""
    norm = length({f"{i} {name}": t for i, part in enumerate(sets) for name, t in part.items()})
    factor = 1.0 if max_norm is None or norm <= max_norm else max_norm / norm
    return [{name: t * factor for name, t in part.items()} for part in sets]


def due(
    g: Vectors,
    basis: Vectors,
    intervention: str,
    rule: dict[str, Any],
    clip: str | None,
    max_norm: float | None,
    means: Vectors,
) -> tuple[Vectors, Vectors]:
    """What the specification feeds: clip and split; the second is empty where nothing is routed."""
    g = {name: t.double() for name, t in g.items()}
    if intervention == "none" or clip in (None, "before"):
        [g] = shortened(max_norm, g)
    if intervention == "none":
        return g, {}
    kept, removed = split_parts(g, basis, rule, means)
    if clip in (None, "before"):
        kept, removed = shortened(max_norm, kept, removed)
    elif clip == "joint":
        both = shortened(max_norm, *([kept, removed] if intervention == "route" else [kept]))
        kept, removed = both[0], both[-1]
    else:
        [kept] = shortened(max_norm, kept)
        [removed] = shortened(max_norm, removed) if clip == "separate" else [removed]
    return kept, removed if intervention == "route" else {}


def moved(p: Tensor, g: Tensor, state: dict[str, Any], optimizer: dict[str, Any]) -> Any:
    """One step of SGD with momentum, or of AdamW, as their papers write them."""
    state["t"] = t = state.get("t", 0) + 1
    if "betas" in optimizer:
        b1, b2 = optimizer["betas"]
        m = state["m"] = b1 * state.get("m", 0) + (1 - b1) * g
        v = state["v"] = b2 * state.get("v", 0) + (1 - b2) * g * g
        step = (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + optimizer["eps"])
        return p * (1 - optimizer["lr"] * optimizer["weight_decay"]) - optimizer["lr"] * step
    g = g + optimizer["weight_decay"] * p
    if t == 1 or not optimizer["momentum"]:
        state["buffer"] = g
    else:
        state["buffer"] = optimizer["momentum"] * state["buffer"] + (1 - optimizer["dampening"]) * g
    direction = g + optimizer["momentum"] * state["buffer"] if optimizer["nesterov"] else state["buffer"]
    return p * (1 - optimizer["lr"] * optimizer["decoupled_decay"]) - optimizer["lr"] * direction


def specification(
    start: Vectors, basis: Vectors, gradients: list[Vectors], intervention: str, max_norm: float | None, setting: Any
) -> list[list[Vectors]]:
    """[deployed, quarantine] after each step as they should be."""
    rule, optimizer, space = setting["rule"], setting["optimizer"], setting["space"]
    at = {name: p.double() for name, p in start.items()}
    deployed, quarantine = dict(at), {name: torch.zeros_like(p) for name, p in at.items()}
    point, states = dict(at), [{name: dict[str, Any]() for name in at} for _ in range(2)]
    means: Vectors = {}
    shown = []
    for g in gradients:
        in_gradient_space = space == "gradient" or intervention == "none"
        kept, removed = due(
            g, basis, intervention if in_gradient_space else "none", rule, setting["clip"], max_norm, means
        )  # fmt: skip
        before = dict(point)
        for name, t in kept.items():
            point[name] = moved(point[name], t, states[0][name], optimizer)
            if name in removed:
                quarantine[name] = moved(quarantine[name], removed[name], states[1][name], optimizer)
        if in_gradient_space:
            deployed = dict(point)
        else:
            since = before if space == "update" else at
            keeps, removes = split_parts({name: since[name] - p for name, p in point.items()}, basis, rule, means)
            for name in point:
                deployed[name] = (deployed if space == "update" else at)[name] - keeps[name]
                if intervention == "route":
                    quarantine[name] = (quarantine[name] if space == "update" else 0) - removes[name]
                else:
                    point[name] = torch.lerp(deployed[name], point[name], setting["retained"])
        shown.append([dict(deployed), dict(quarantine)])
    return shown
