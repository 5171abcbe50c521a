"""Trajectories, and where two of them part."""

import math
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from invariants.bounds import unit_roundoff
from invariants.optimizers.finding import Answer, Finding

AMPLIFICATION = 1000.0
"""What an optimizer's memory may make of a rounding error: 1 / (1 - beta) for the longest memories in use."""

Path = dict[str, Tensor]  # vector -> (steps + 1, r)


def trajectory_bound(steps: int, dtype: torch.dtype) -> float:
    """How far two runs that are equal in exact arithmetic may be apart, relative to the largest value on the way.

    Each of `steps` steps rounds, by u of what is there, and later steps may amplify that: steps * AMPLIFICATION * u,
    1e-11 for 100 steps in float64. Where an identity holds, about 1e-14 is seen, and where it doesn't, 1e-2; a figure
    between is worth a look.
    """
    return steps * AMPLIFICATION * unit_roundoff(dtype)


@dataclass(frozen=True)
class Gap:
    """How far two paths are apart: relative to the largest value of each vector, and where the bound is exceeded."""

    figure: float
    step: int | None
    vector: str | None


def gap(a: Mapping[str, Tensor], b: Mapping[str, Tensor], bound: float, scale: Mapping[str, float]) -> Gap:
    """Between paths of the same vectors; NaN beside a number counts as infinite, NaN beside NaN as equal."""
    figure, first = 0.0, (math.inf, "")
    for name, path in a.items():
        apart = (path - b[name]).abs().amax(dim=1).double() / (scale[name] or 1.0)  # (steps + 1,)
        alike = (path == b[name]) | (path.isnan() & b[name].isnan())
        apart = torch.where(alike.all(dim=1), 0.0, apart.nan_to_num(nan=math.inf, posinf=math.inf))
        figure = max(figure, float(apart.max()))
        exceeded = (apart > bound).nonzero()
        if len(exceeded):
            first = min(first, (int(exceeded[0]), name))
    return Gap(figure, None, None) if first[0] == math.inf else Gap(figure, int(first[0]), first[1])


def judged(found: Gap, bound: float, note: str = "") -> Finding:
    """The finding that a gap is."""
    answer = Answer.HOLDS if found.step is None else Answer.VIOLATED
    return Finding(answer=answer, figure=found.figure, bound=bound, step=found.step, vector=found.vector, note=note)


def sizes(*paths: Mapping[str, Tensor]) -> dict[str, float]:
    """The largest finite value of each vector on any of the paths."""
    return {name: max(float(_finite(path[name]).abs().max()) for path in paths) for name in paths[0]}


def moves(path: Mapping[str, Tensor]) -> Path:
    """Each path minus where it starts."""
    return {name: values - values[:1] for name, values in path.items()}


def _finite(values: Tensor) -> Tensor:
    return torch.where(values.isfinite(), values, 0.0)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside the block every generator that code can reach without asking starts from the seed; the caller's go on
    afterwards as if nothing had been."""
    python, numbers = random.getstate(), numpy.random.get_state()  # noqa: NPY002  (the old global one)
    on_cuda = bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]  # torch leaves it untyped
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if on_cuda else []):
        (torch.manual_seed if on_cuda else torch.default_generator.manual_seed)(seed)  # the first takes 0.2 ms
        random.seed(seed)
        numpy.random.seed(seed)  # noqa: NPY002  (the old global one is what foreign code draws from)
        try:
            yield
        finally:
            random.setstate(python)
            numpy.random.set_state(numbers)  # noqa: NPY002  (the same)
