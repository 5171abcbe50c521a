"""A Linear, values for both vectors, and an input."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from invariants.cases.draws import numbers


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

    @property
    def told(self) -> str:
        """The shapes, and for a tiny case the numbers."""
        shapes = f"{' x '.join(map(str, self.weight.shape))}, {'no' if self.bias is None else 'with'} bias"
        if self.weight.numel() > 6 or self.x.numel() > 6:
            return f"{shapes}: {self.label}"
        figures = {"weight": self.weight, "deployed": self.deployed, "quarantine": self.quarantine, "x": self.x}
        return f"{shapes}: {', '.join(f'{name}={numbers(value)}' for name, value in figures.items())}"

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """All of its numbers."""
        vectors = (self.deployed, self.quarantine, self.x)
        return (self.weight, *vectors) if self.bias is None else (self.weight, self.bias, *vectors)

    def simpler(self) -> Iterator["AdapterCase"]:
        """Cases that are a little simpler: no bias, a smaller batch, a corner of the weight; then rounder numbers."""
        if self.bias is not None:
            yield replace(self, bias=None)
        if len(self.x) > 1:
            yield replace(self, x=self.x[:1])
        for rows, columns in ((1, 0), (0, 1), (1, 1)):
            d_out, d_in = self.weight.shape[0] - rows, self.weight.shape[1] - columns
            r = min(d_out, d_in)
            if r:
                yield replace(
                    self, weight=self.weight[:d_out, :d_in].contiguous(), x=self.x[:, :d_in].contiguous(),
                    bias=None if self.bias is None else self.bias[:d_out], deployed=self.deployed[:r],
                    quarantine=self.quarantine[:r],
                )  # fmt: skip
        for change in (torch.zeros_like, torch.sign):
            yield replace(self, deployed=change(self.deployed))
            yield replace(self, quarantine=change(self.quarantine))
            yield replace(self, x=change(self.x))


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
