"""A Linear, values for both vectors, and an input."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class AdapterCase:
    """A Linear, values for both vectors, and an input."""

    weight: Tensor  # (d_out, d_in)
    bias: Tensor | None  # (d_out,)
    deployed: Tensor  # (r,)
    quarantine: Tensor  # (r,)
    x: Tensor  # (batch, d_in)
    label: str

    @property
    def size(self) -> int:
        """How big the case is, to find the smallest that fails."""
        return self.weight.numel()


def linears(seed: int) -> Iterator[AdapterCase]:
    """Seeded Linears of several shapes, with and without a bias."""
    for index, (d_out, d_in) in enumerate(((1, 1), (5, 3), (3, 5), (16, 16), (24, 40), (16, 16))):
        draw = torch.Generator().manual_seed(1000 * seed + 800 + index)

        def normal(*shape: int, draw: torch.Generator = draw) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64, generator=draw)

        r = min(d_out, d_in)
        yield AdapterCase(
            weight=normal(d_out, d_in) / math.sqrt(d_in),
            bias=normal(d_out) if index % 2 else None,
            deployed=normal(r) / 4,
            quarantine=normal(r) / 4,
            x=normal(7, d_in),
            label=f"{d_out} x {d_in}, {'with' if index % 2 else 'no'} bias",
        )
