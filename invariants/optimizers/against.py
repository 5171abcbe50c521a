"""torch.optim.SGD and AdamW against the specification, in every implementation that this machine has.

The gradients are those of the probes, rounded to the dtype. The specification runs on the same numbers in float64, the
arbiter. The difference is in units in the last place (ulp) of the largest value that the coordinate has had: after a
cancellation an ulp of what is left would be an ulp of nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import reference
from invariants.optimizers.candidate import Candidate
from invariants.optimizers.finding import Answer, Finding, not_measured
from invariants.optimizers.foreign import raised
from invariants.optimizers.paths import Path
from invariants.optimizers.runs import run
from invariants.optimizers.sequences import Drawn, drawn

DTYPES = (torch.float64, torch.float32)
IMPLEMENTATIONS: dict[str, dict[str, bool]] = {
    "loop": {"foreach": False, "fused": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
    "capturable": {"capturable": True, "foreach": False},
}


@dataclass(frozen=True, kw_only=True)
class Twin:
    """One of torch's optimizers, and the specification's with the same hyperparameters.

    betas: of its running averages; the memory 1 / (1 - beta) of the longest decides what a rounding error becomes.
    corrected: whether the averages are corrected for their start at zero, by 1 - beta^t.
    """

    name: str
    make: Any
    kwargs: Mapping[str, Any]
    reference: reference.Optimizer
    betas: tuple[float, ...] = ()
    corrected: bool = False


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One implementation in one dtype; the figure of the finding is in ulp."""

    twin: str
    implementation: str
    dtype: str
    finding: Finding = field(hash=False)


SGD, ADAMW = torch.optim.SGD, torch.optim.AdamW
TWINS = (
    Twin(name="SGD", make=SGD, kwargs={"lr": 0.1}, reference=reference.SGD(lr=0.1)),
    Twin(
        name="SGD, momentum, L2", make=SGD, kwargs={"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
        reference=reference.SGD(lr=0.1, momentum=0.9, weight_decay=0.01), betas=(0.9,),
    ),
    Twin(
        name="SGD, Nesterov, maximize", make=SGD, betas=(0.9,),
        kwargs={"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True},
        reference=reference.SGD(lr=0.1, momentum=0.9, nesterov=True, maximize=True),
    ),
    Twin(
        name="SGD, dampening", make=SGD, kwargs={"lr": 0.1, "momentum": 0.9, "dampening": 0.5},
        reference=reference.SGD(lr=0.1, momentum=0.9, dampening=0.5), betas=(0.9,),
    ),
    Twin(
        name="AdamW", make=ADAMW, kwargs={"lr": 0.01}, reference=reference.AdamW(lr=0.01), betas=(0.9, 0.999),
        corrected=True,
    ),
    Twin(
        name="AdamW, amsgrad", make=ADAMW, kwargs={"lr": 0.01, "betas": (0.9, 0.99), "amsgrad": True},
        reference=reference.AdamW(lr=0.01, betas=(0.9, 0.99), amsgrad=True), betas=(0.9, 0.99), corrected=True,
    ),
    Twin(
        name="AdamW, maximize", make=ADAMW, kwargs={"lr": 0.01, "betas": (0.9, 0.99), "maximize": True},
        reference=reference.AdamW(lr=0.01, betas=(0.9, 0.99), maximize=True), betas=(0.9, 0.99), corrected=True,
    ),
)  # fmt: skip


def against_reference(seed: int = 0, device: str = "cpu") -> list[Comparison]:
    """Every twin, in every implementation and dtype; what a machine does not have says so."""
    return [
        Comparison(twin=twin.name, implementation=name, dtype=str(dtype).removeprefix("torch."), finding=finding)
        for twin in TWINS
        for dtype in DTYPES
        for name, finding in _implementations(twin, dtype, seed, device)
    ]


def _implementations(twin: Twin, dtype: torch.dtype, seed: int, device: str) -> Iterator[tuple[str, Finding]]:
    given = drawn(seed, dtype)
    expected = specified(twin.reference, given)
    candidate = Candidate(name=twin.name, make=twin.make, kwargs=twin.kwargs)
    for name, flags in IMPLEMENTATIONS.items():
        if any(not candidate.accepts(flag) for flag in flags):
            yield name, not_measured("it has no such argument")
            continue
        try:
            there = {n: p.to(device) for n, p in given.start.items()}, {n: g.to(device) for n, g in given.b.items()}
            path = {n: values.cpu() for n, values in run(candidate.having(**flags), *there).items()}
        except Exception as error:  # what this machine or this version of torch does not have
            yield name, not_measured(raised(error))
            continue
        yield name, in_ulp(path, expected, allowed(expected, twin))


def specified(optimizer: reference.Optimizer, given: Drawn) -> Path:
    """The specification's path in float64."""
    path = {}
    for name, start in given.start.items():
        p, state = start.double(), optimizer.start(start.double())
        values = [p]
        for g in given.b[name].double():
            p, state = optimizer.step(p, g, state)
            values.append(p)
        path[name] = torch.stack(values)
    return path


def allowed(expected: Path, twin: Twin) -> dict[str, Tensor]:
    """How many ulp a path may be away at each step; vector -> (steps + 1,).

    A step rounds the parameter, by at most 2 halves of an ulp of its size (decay, update), and the update itself: at
    most 16 operations, on buffers whose own rounding errors are remembered for 1 / (1 - beta) steps; a unit roundoff
    is at most one ulp of what it belongs to. With m the largest move of a step and s the largest value so far:

            t + sum over the steps of m (16 + 4 min(t, 1 / (1 - beta)) + sum over betas of 1 / (1 - beta^t)) / s

    The last sum, where averages are corrected, is the cancellation in 1 - beta^t, if it is computed in the dtype of the
    parameters.
    """
    bounds = {}
    for name, path in expected.items():
        t = torch.arange(len(path), dtype=torch.float64)
        moved = torch.cat([torch.zeros(1, dtype=torch.float64), (path[1:] - path[:-1]).abs().amax(dim=1)])
        size = path.abs().amax(dim=1).cummax(0).values.clamp(min=torch.finfo(torch.float64).tiny)
        memory = torch.minimum(t, torch.tensor(1 / (1 - max(twin.betas, default=0.0))))
        corrected = twin.betas if twin.corrected else ()
        cancelled = sum((1 / (1 - beta ** t.clamp(min=1)) for beta in corrected), start=torch.zeros_like(t))
        bounds[name] = t + (moved * (16 + 4 * memory + cancelled)).cumsum(0) / size
    return bounds


def in_ulp(path: Path, expected: Path, bound: Mapping[str, Tensor]) -> Finding:
    """How far a path is from what was expected of it, in ulp of its dtype."""
    worst, allowed_there, step, vector = 0.0, 0.0, None, None
    for name, values in path.items():
        eps = torch.finfo(values.dtype).eps
        largest = expected[name].abs().cummax(dim=0).values
        unit = eps * 2.0 ** largest.clamp(min=torch.finfo(values.dtype).tiny).log2().floor()
        apart = ((values.double() - expected[name]).abs() / unit).amax(dim=1)
        beyond = (apart > bound[name]).nonzero()
        if len(beyond) and (step is None or int(beyond[0]) < step):
            step, vector = int(beyond[0]), name
        if float(apart.max()) > worst:
            worst, allowed_there = float(apart.max()), float(bound[name][apart.argmax()])
    answer = Answer.HOLDS if step is None else Answer.VIOLATED
    return Finding(answer=answer, figure=worst, bound=allowed_there, step=step, vector=vector, note="ulp")
