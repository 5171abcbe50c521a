"""Gradients of several modules over several steps: a tape's, and seeded ones."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from invariants.cases.draws import orthonormal_rows
from reference import Tape


@dataclass(frozen=True, eq=False, kw_only=True)
class StepCase:
    """Gradients of several modules over several steps; max_norm lies inside the norms, so that a clip fires on some."""

    gradients: dict[str, Tensor]  # module -> (steps, r)
    basis: dict[str, Tensor]  # module -> (k, r)
    start: dict[str, Tensor]  # module -> (r,)
    max_norm: float
    label: str

    @property
    def steps(self) -> int:
        """How many steps the gradients have."""
        return next(iter(self.gradients.values())).shape[0]

    @property
    def size(self) -> int:
        """How big the case is, to find the smallest that fails."""
        return sum(g.numel() for g in self.gradients.values())


def norms_per_step(gradients: dict[str, Tensor]) -> Tensor:
    """The global norm of each step's gradients, (steps,)."""
    return torch.stack([g.double().square().sum(dim=1) for g in gradients.values()]).sum(dim=0).sqrt()


def steps_of(tape: Tape) -> StepCase:
    """A whole tape as one case, with the median of its norms as the limit."""
    gradients = {name: g.double() for name, g in tape.gradients.items()}
    return StepCase(
        gradients=gradients,
        basis={name: V.double() for name, V in tape.basis.items()},
        start={name: p.double() for name, p in tape.start.items()},
        max_norm=float(norms_per_step(gradients).median()),
        label="tape",
    )


def synthetic_steps(seed: int) -> Iterator[StepCase]:
    """Three modules of different r and k, one without a basis."""
    shapes = {"narrow": (6, 2), "wide": (24, 4), "no basis": (8, 0)}
    kinds = ("noise", "hack-ward drift", "anti-hack drift", "magnitudes apart, steps of zeros", "away from zero")
    for index, kind in enumerate(kinds):
        draw = torch.Generator().manual_seed(1000 * seed + 500 + index)
        basis = {name: orthonormal_rows(k, r, draw) for name, (r, k) in shapes.items()}
        gradients = {name: torch.randn(12, r, dtype=torch.float64, generator=draw) for name, (r, _) in shapes.items()}
        start = {name: torch.zeros(r, dtype=torch.float64) for name, (r, _) in shapes.items()}
        for number, name in enumerate(shapes):
            along = basis[name].sum(dim=0)  # (r,)
            if kind == "hack-ward drift":
                gradients[name] += 2 * along
            elif kind == "anti-hack drift":
                gradients[name] -= 2 * along
            elif kind == "magnitudes apart, steps of zeros":
                gradients[name] *= 10.0 ** (-3 * number)
                gradients[name][::4] = 0.0
            elif kind == "away from zero":
                start[name] = torch.randn(start[name].shape, dtype=torch.float64, generator=draw)
        max_norm = float(norms_per_step(gradients).median())
        yield StepCase(gradients=gradients, basis=basis, start=start, max_norm=max_norm, label=kind)
