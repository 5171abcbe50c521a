"""Contrastive problems whose gradients are known in closed form, with well separated singular values.

The loss of a completion is a sum over modules of slope . x + x . diag(bend) x / 2, so that its gradient is
slope + bend * x: it turns with x wherever the bends of hack and clean differ.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from invariants.cases.draws import numbers, orthonormal_rows

# Shares of the largest singular value, away from multiples of 0.15, where noise floors are tried.
SPECTRUM = torch.tensor([1.0, 0.82, 0.66, 0.53, 0.38, 0.22, 0.08], dtype=torch.float64)
# Four pairs, two axes: orthogonal columns of two positive and two negative entries, one sum above zero and one below.
TIED = torch.tensor([[8.0, 1.0], [-2.0, 1.0], [8.0, -2.0], [-2.0, -5.0]], dtype=torch.float64)


@dataclass(frozen=True, eq=False, kw_only=True)
class ContrastiveModule:
    """What the losses of all completions are in one module; index 0 is the hack, 1 the clean completion."""

    slopes: Tensor  # (2, pairs, r)
    bends: Tensor  # (2, pairs, r)
    deployed: Tensor  # (r,)
    quarantine: Tensor  # (r,)

    def gradients(self, x: Tensor) -> Tensor:
        """Where the losses read x (r,); (2, pairs, r)."""
        return self.slopes + self.bends * x

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """All of its numbers."""
        return self.slopes, self.bends, self.deployed, self.quarantine

    def to(self, dtype: torch.dtype) -> "ContrastiveModule":
        """The same, rounded."""
        return ContrastiveModule(
            slopes=self.slopes.to(dtype), bends=self.bends.to(dtype), deployed=self.deployed.to(dtype),
            quarantine=self.quarantine.to(dtype),
        )  # fmt: skip

    def of_pairs(self, kept: slice) -> "ContrastiveModule":
        """With some of the pairs."""
        return replace(self, slopes=self.slopes[:, kept], bends=self.bends[:, kept])

    def with_zero(self, part: str) -> "ContrastiveModule":
        """With zeros for slopes, bends, deployed or quarantine."""
        zeros: Tensor = torch.zeros_like(getattr(self, part))
        return replace(self, **{part: zeros})

    def without_coordinate(self, at: int) -> "ContrastiveModule":
        """In one dimension less."""
        kept = [i for i in range(len(self.deployed)) if i != at]
        return ContrastiveModule(
            slopes=self.slopes[..., kept], bends=self.bends[..., kept], deployed=self.deployed[kept],
            quarantine=self.quarantine[kept],
        )  # fmt: skip


@dataclass(frozen=True, eq=False, kw_only=True)
class ExtractionCase:
    """Pairs of completions over several modules."""

    modules: dict[str, ContrastiveModule]
    k: int
    label: str

    @property
    def pairs(self) -> int:
        """How many pairs there are."""
        return next(iter(self.modules.values())).slopes.shape[1]

    @property
    def curved(self) -> bool:
        """Whether gradients depend on where they are taken."""
        return any(bool(module.bends.any()) for module in self.modules.values())

    @property
    def size(self) -> int:
        """How big the case is, to find the smallest that fails."""
        return self.k + sum(module.slopes.numel() for module in self.modules.values())

    @property
    def told(self) -> str:
        """The shapes, and for a tiny case the numbers."""
        shapes = f"{self.pairs} pair{'s' if self.pairs > 1 else ''}, k={self.k}, " + "; ".join(
            f"{name} r={len(module.deployed)}" for name, module in self.modules.items()
        )
        if self.size > 16:
            return f"{shapes}: {self.label}"
        gradients = {name: module.gradients(module.deployed) for name, module in self.modules.items()}
        figures = [f"{name}: hack={numbers(hack)}, clean={numbers(clean)}" for name, (hack, clean) in gradients.items()]
        for name, module in self.modules.items() if self.curved else ():
            figures.append(f"{name} turns by {numbers(module.bends)} times quarantine={numbers(module.quarantine)}")
        return f"{shapes}: {', '.join(figures)}"

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """All of its numbers."""
        return tuple(part for module in self.modules.values() for part in module.parts)

    def simpler(self) -> Iterator["ExtractionCase"]:
        """Cases that are a little simpler: fewer modules, pairs, axes, coordinates; then rounder numbers."""
        for left_out in self.modules if len(self.modules) > 1 else ():
            yield replace(self, modules={name: module for name, module in self.modules.items() if name != left_out})
        for few in {self.pairs // 2, self.pairs - 1} - {0}:
            for kept in (slice(few), slice(-few, None)):
                yield self._of((name, module.of_pairs(kept)) for name, module in self.modules.items())
        if self.k > 1:
            yield replace(self, k=self.k - 1)
        for name, module in self.modules.items():
            for at in range(len(module.deployed) if len(module.deployed) > 1 else 0):
                yield replace(self, modules={**self.modules, name: module.without_coordinate(at)})
        for part in ("bends", "quarantine", "deployed"):
            yield self._of((name, module.with_zero(part)) for name, module in self.modules.items())
        for change in (torch.round, torch.sign):
            yield self._of((name, replace(m, slopes=change(m.slopes))) for name, m in self.modules.items())

    def _of(self, modules: Iterable[tuple[str, ContrastiveModule]]) -> "ExtractionCase":
        return replace(self, modules=dict(modules))


def module(differences: Tensor, draw: torch.Generator, *, curved: bool) -> ContrastiveModule:
    """Completions whose gradients at `deployed` differ by these rows (pairs, r), and have a large part in common."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=draw)

    pairs, r = differences.shape
    deployed = normal(r) / 2
    clean = 2 * normal(r) + normal(pairs, r)
    bends = normal(2, pairs, r) if curved else torch.zeros(2, pairs, r, dtype=torch.float64)
    if not differences.any():
        bends[0] = bends[1]
    gradients = torch.stack([clean + differences, clean])
    return ContrastiveModule(
        slopes=gradients - bends * deployed, bends=bends, deployed=deployed, quarantine=2 * normal(r)
    )


def spread(pairs: int, r: int, draw: torch.Generator, *, first: Tensor | None = None) -> Tensor:
    """(pairs, r) with singular values 8 * SPECTRUM and random singular vectors; the first left one along `first`."""
    n = min(pairs, r, len(SPECTRUM))
    left = torch.randn(pairs, n, dtype=torch.float64, generator=draw)
    if first is not None:
        left[:, 0] = first
    rows: Tensor = 8 * torch.linalg.qr(left).Q * SPECTRUM[:n] @ orthonormal_rows(n, r, draw)
    return rows


def contrasts(seed: int) -> Iterator[ExtractionCase]:
    """Linear and curved losses, fewer and more pairs than coordinates, outliers, repeated pairs, ties."""

    def generator(index: int) -> torch.Generator:
        return torch.Generator().manual_seed(1000 * seed + 900 + index)

    draw = generator(0)
    yield ExtractionCase(
        modules={"only": module(spread(3, 1, draw), draw, curved=False)}, k=2, label="one coordinate, 3 pairs"
    )
    for index, (pairs, curved) in enumerate(((7, False), (7, True), (15, True)), start=1):
        draw = generator(index)
        differences = {
            "wide": spread(pairs, 12, draw), "narrow": 0.7 * spread(pairs, 5, draw),
            "quiet": spread(pairs, 9, draw) / 16, "without a difference": torch.zeros(pairs, 6, dtype=torch.float64),
        }  # fmt: skip
        yield ExtractionCase(
            modules={name: module(D, draw, curved=curved) for name, D in differences.items()}, k=4,
            label=f"{pairs} pairs, {'curved' if curved else 'linear'}",
        )  # fmt: skip
    for index, sign in enumerate((1.0, -1.0), start=4):
        draw = generator(index)
        weights = sign * torch.tensor([1.0, 1.1, 0.9, 1.2, -40.0], dtype=torch.float64)
        D = spread(5, 8, draw, first=weights)
        yield ExtractionCase(
            modules={"only": module(D, draw, curved=False)}, k=2, label=f"an outlier{'' if sign > 0 else ', exchanged'}"
        )
    draw = generator(6)
    repeated = spread(3, 8, draw).repeat(3, 1)
    linear = module(repeated, draw, curved=False)
    same = ContrastiveModule(
        slopes=linear.slopes[:, :3].repeat(1, 3, 1), bends=linear.bends, deployed=linear.deployed,
        quarantine=linear.quarantine,
    )  # fmt: skip
    yield ExtractionCase(modules={"only": same}, k=5, label="3 pairs, each three times")
    for turn in range(len(TIED)):
        draw = generator(7)  # the same pairs in another order, so that a decomposition gives them other signs
        tied = TIED.roll(turn, dims=0) * torch.tensor([1.0, 0.5]) @ orthonormal_rows(2, 6, draw)
        yield ExtractionCase(modules={"only": module(tied, draw, curved=False)}, k=2, label=f"a tied vote, {turn}")
