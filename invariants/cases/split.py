"""One gradient and one basis: every step of a tape, and a seeded grid of adversarial ones."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from invariants.cases.draws import orthonormal_rows
from reference import Tape


@dataclass(frozen=True, eq=False, kw_only=True)
class SplitCase:
    """One gradient and one basis."""

    g: Tensor  # (r,)
    V: Tensor  # (k, r)
    label: str

    @property
    def size(self) -> int:
        """How big the case is, to find the smallest that fails."""
        return self.V.numel() + self.g.numel()


def splits_of(tape: Tape) -> Iterator[SplitCase]:
    """Every module at every step of a tape."""
    for t, gradients in enumerate(tape):
        for name, g in gradients.items():
            yield SplitCase(g=g.double(), V=tape.basis[name].double(), label=f"tape, step {t}, {name}")


def adversarial_splits(seed: int) -> Iterator[SplitCase]:
    """Gradients that are special to a basis, from r = 1 on, with k from 0 to r."""
    for r, k in ((1, 0), (1, 1), (2, 1), (5, 5), (16, 3), (64, 8), (257, 6)):
        draw = torch.Generator().manual_seed(1000 * seed + 10 * r + k)
        V = orthonormal_rows(k, r, draw)
        noise = torch.randn(r, dtype=torch.float64, generator=draw)
        weights = torch.rand(k, dtype=torch.float64, generator=draw) + 0.5
        sparse = torch.zeros(r, dtype=torch.float64)
        sparse[r // 2] = 1.0
        wide = noise * 10.0 ** torch.linspace(-12, 12, r, dtype=torch.float64)
        shapes = {
            "noise": noise,
            "zero": torch.zeros(r, dtype=torch.float64),
            "hack-ward, in the span": V.T @ weights,
            "anti-hack, in the span": -V.T @ weights,
            "orthogonal to the span": noise - V.T @ (V @ noise),
            "one coordinate": sparse,
            "magnitudes over 24 orders": wide,
            "huge": noise * 1e30,
            "tiny": noise * 1e-30,
        }
        for kind, g in shapes.items():
            yield SplitCase(g=g, V=V, label=f"{kind}, r={r}, k={k}")
        if k:
            with_zero_row = torch.cat([V[:1], torch.zeros(1, r, dtype=torch.float64), V[1:]])
            yield SplitCase(g=noise, V=with_zero_row, label=f"noise, a zero row in V, r={r}, k={k}")
