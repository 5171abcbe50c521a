"""Small routed vectors, a basis and a fixed sequence of gradients, for the tests of the routed optimizer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jaxtyping
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from projected_grpo.basis import Basis
from projected_grpo.optimizer import RoutedOptimizer
from projected_grpo.vectors import VectorPair

SHAPES = {"a.q": (3, 12), "a.v": (1, 7), "b.q": (2, 12), "b.plain": (0, 5)}
SPACES = ["gradient", "update", "displacement"]
INTERVENTIONS = ["none", "erase", "route"]
BASES: dict[str, Callable[[list[nn.Parameter]], Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.1),
}
Pairs = dict[str, VectorPair]


def make_basis(seed: int = 0) -> Basis:
    generator = torch.Generator().manual_seed(seed)
    normal = {name: torch.randn(r, k, generator=generator) for name, (k, r) in SHAPES.items()}
    return Basis({name: torch.linalg.qr(x)[0].T for name, x in normal.items()})


def make_pairs(*, quarantine: bool = True) -> Pairs:
    generator = torch.Generator().manual_seed(1)
    starts = {name: 0.1 * torch.randn(r, generator=generator) for name, (_, r) in SHAPES.items()}
    return {
        name: VectorPair(nn.Parameter(start), nn.Parameter(torch.zeros_like(start)) if quarantine else None)
        for name, start in starts.items()
    }


def parameters(pairs: Pairs) -> list[nn.Parameter]:
    return [vector for pair in pairs.values() for vector in pair if vector is not None]


def gradients(step: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    return {name: torch.randn(r, generator=generator) for name, (_, r) in SHAPES.items()}


def take(optimizer: Optimizer, pairs: Pairs, steps: range, *, without: str | None = None) -> None:
    """Steps on a fixed sequence of gradients, which arrive by backward."""
    for step in steps:
        optimizer.zero_grad()
        g = gradients(step)
        terms = [
            (pair.deployed + (0 if pair.quarantine is None else pair.quarantine)) @ g[name]
            for name, pair in pairs.items()
            if name != without
        ]
        torch.stack(terms).sum().backward()
        optimizer.step()


def values(pairs: Pairs) -> dict[str, list[Tensor]]:
    return {name: [v.detach().clone() for v in pair if v is not None] for name, pair in pairs.items()}


@torch.no_grad()
def load(pairs: Pairs, saved: dict[str, list[Tensor]]) -> None:
    """Writes what `values` returned."""
    for name, vectors in saved.items():
        for vector, value in zip((v for v in pairs[name] if v is not None), vectors, strict=True):
            vector.copy_(value)


@contextmanager
def unchecked_types() -> Iterator[None]:
    """Inside the block the package's own errors show, not beartype's, which real callers don't have."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def same_bits(a: dict[str, list[Tensor]], b: dict[str, list[Tensor]]) -> bool:
    return all(torch.equal(x, y) for name in a for x, y in zip(a[name], b[name], strict=True))


def routed(pairs: Pairs, base: str = "AdamW", seed: int = 0, **options: Any) -> RoutedOptimizer:
    return RoutedOptimizer(BASES[base](parameters(pairs)), pairs, make_basis(seed), **options)
