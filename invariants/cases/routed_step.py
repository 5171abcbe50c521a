"""Gradients of several modules over several steps: a tape's, and seeded ones."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from invariants.cases.draws import numbers, orthonormal_rows, spread_evenly, without_column
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

    @property
    def told(self) -> str:
        """The shapes, and for a tiny case the numbers."""
        shapes = "; ".join(f"{name} r={V.shape[1]}, k={V.shape[0]}" for name, V in self.basis.items())
        shapes = f"{self.steps} step{'s' if self.steps > 1 else ''}, {shapes}"
        if self.size > 8:
            return f"{shapes}: {self.label}"
        fed = ", ".join(
            f"{name}: g={numbers(g)}, V={numbers(self.basis[name])}"
            + (f", start={numbers(self.start[name])}" if self.start[name].any() else "")
            for name, g in self.gradients.items()
        )
        return f"{shapes}: {fed}, limit {self.max_norm:.6g}"

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """All of its numbers."""
        return (*self.gradients.values(), *self.basis.values(), *self.start.values())

    def simpler(self) -> Iterator["StepCase"]:
        """Cases that are a little simpler: fewer modules, steps, rows, coordinates; then rounder numbers.

        Some module keeps a row: a basis that is empty everywhere is no input, loops may refuse it.
        """
        return (case for case in self._simpler() if any(V.any() for V in case.basis.values()))

    def _simpler(self) -> Iterator["StepCase"]:
        for left_out in self.basis if len(self.basis) > 1 else ():
            kept = [name for name in self.basis if name != left_out]
            yield self._with(*({name: part[name] for name in kept} for part in self._by_module))
        for few in (self.steps // 2, self.steps - 1):
            if 0 < few < self.steps:
                yield self._with({name: g[:few] for name, g in self.gradients.items()})
                yield self._with({name: g[-few:] for name, g in self.gradients.items()})
        for name, V in self.basis.items():
            for row in range(len(V)):
                yield self._with(None, {**self.basis, name: torch.cat([V[:row], V[row + 1 :]])})
            for at in range(V.shape[1] if V.shape[1] > 1 else 0):
                g, start = (
                    torch.cat([t[..., :at], t[..., at + 1 :]], dim=-1) for t in (self.gradients[name], self.start[name])
                )
                yield self._with(
                    {**self.gradients, name: g}, {**self.basis, name: without_column(V, at)},
                    {**self.start, name: start},
                )  # fmt: skip
        if any(start.any() for start in self.start.values()):
            yield self._with(None, None, {name: torch.zeros_like(p) for name, p in self.start.items()})
        for change in (torch.round, torch.sign):
            changed = {name: change(g) for name, g in self.gradients.items()}
            if any(not torch.equal(g, changed[name]) for name, g in self.gradients.items()):
                yield self._with(changed)

    @property
    def _by_module(self) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        return self.gradients, self.basis, self.start

    def _with(
        self,
        gradients: dict[str, Tensor] | None = None,
        basis: dict[str, Tensor] | None = None,
        start: dict[str, Tensor] | None = None,
    ) -> "StepCase":
        """The case with other parts, and a limit that fits its norms again."""
        fed = self.gradients if gradients is None else gradients
        return replace(
            self, gradients=fed, basis=self.basis if basis is None else basis,
            start=self.start if start is None else start, max_norm=limit_between(fed),
        )  # fmt: skip


def norms_per_step(gradients: Mapping[str, Tensor]) -> Tensor:
    """The global norm of each step's gradients, (steps,)."""
    return torch.stack([g.double().square().sum(dim=1) for g in gradients.values()]).sum(dim=0).sqrt()


def limit_between(gradients: Mapping[str, Tensor]) -> float:
    """A limit that the longest gradient exceeds, well away from every norm; 1 where all are zero.

    A norm within rounding of the limit would be clipped by one implementation and not by another.
    """
    norms = sorted({float(norm) for norm in norms_per_step(gradients) if norm > 0})
    if not norms:
        return 1.0
    below, above = max(zip([norms[0] / 4, *norms], norms, strict=False), key=lambda pair: pair[1] / pair[0])
    return (below + above) / 2


def steps_of(tape: Tape, steps: int | None = None) -> StepCase:
    """A whole tape as one case, or this many of its steps, spread evenly; the median of its norms is the limit."""
    chosen = sorted(spread_evenly(tape.steps, steps))
    gradients = {name: g.double()[chosen] for name, g in tape.gradients.items()}
    return StepCase(
        gradients=gradients,
        basis={name: V.double() for name, V in tape.basis.items()},
        start={name: p.double() for name, p in tape.start.items()},
        max_norm=float(norms_per_step(gradients).median()) or limit_between(gradients),
        label="tape",
    )


def synthetic_steps(seed: int) -> Iterator[StepCase]:
    """Three modules of different r and k, one without a basis; then the edges: r = 1, k = r, rows of zeros."""
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
    draw = torch.Generator().manual_seed(1000 * seed + 510)
    basis = {"r = 1": torch.ones(1, 1, dtype=torch.float64), "k = r": orthonormal_rows(3, 3, draw)}
    zero = torch.zeros(1, 5, dtype=torch.float64)
    basis["zero row"] = torch.cat([zero, orthonormal_rows(2, 5, draw)])
    gradients = {name: torch.randn(6, V.shape[1], dtype=torch.float64, generator=draw) for name, V in basis.items()}
    gradients["no basis"] = torch.randn(6, 2, dtype=torch.float64, generator=draw)
    basis["no basis"] = torch.zeros(0, 2, dtype=torch.float64)
    start = {name: torch.zeros(V.shape[1], dtype=torch.float64) for name, V in basis.items()}
    yield StepCase(
        gradients=gradients, basis=basis, start=start, max_norm=limit_between(gradients), label="edges of k and r"
    )
