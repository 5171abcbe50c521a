"""The inputs that checks run on: gradients of a real run from a tape, and a seeded grid of adversarial ones.

Cases are float64; a trial casts them to the subject's dtype, and judges what the subject did with the cast values.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from invariants.bounds import orthonormality_defect, unit_roundoff
from invariants.errors import SuiteError, UnusableTapeError
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


Case = SplitCase | StepCase | AdapterCase


@dataclass(frozen=True, eq=False, kw_only=True)
class Cases:
    """All cases of a run, by capability."""

    split: tuple[SplitCase, ...]
    routed_step: tuple[StepCase, ...]
    adapter: tuple[AdapterCase, ...]
    seed: int


def build_cases(tape: Tape, seed: int) -> Cases:
    """What a run with this tape and seed checks; the same arguments give the same bits.

    Raises UnusableTapeError, and SuiteError for a seed that torch's generators do not take.
    """
    if not 0 <= seed < 2**48:
        raise SuiteError(f"The seed is {seed}; it must be at least 0 and below 2**48.")
    check_tape(tape)
    return Cases(
        split=(*_split_cases_of(tape), *_adversarial_splits(seed)),
        routed_step=(_step_case_of(tape), *synthetic_steps(seed)),
        adapter=tuple(_adapter_cases(seed)),
        seed=seed,
    )


def check_tape(tape: Tape) -> None:
    """Refuses a tape that no run can have recorded, so that it is not the subject that is blamed.

    Rows may come from a float32 decomposition, whose vectors are orthogonal to a modest multiple of r u.
    """
    names = set(tape.gradients)
    if not names or names != set(tape.basis) or names != set(tape.start):
        raise UnusableTapeError("The tape's gradients, basis and start do not name the same modules; record it again.")
    steps = tape.steps
    for name, g in tape.gradients.items():
        V, start = tape.basis[name], tape.start[name]
        shapes = f"gradients {tuple(g.shape)}, basis {tuple(V.shape)} and start {tuple(start.shape)}"
        if g.dim() != 2 or g.shape[0] != steps or steps < 1 or V.dim() != 2 or start.shape != g.shape[1:]:
            raise UnusableTapeError(f"{name}: the tape has {shapes}; they must be ({steps}, r), (k, r) and (r,).")
        if V.shape[1] != g.shape[1] or g.shape[1] < 1:
            raise UnusableTapeError(f"{name}: the tape has {shapes}; they must agree in r.")
        if not all(bool(t.isfinite().all()) for t in (g, V, start)):
            raise UnusableTapeError(f"{name}: the tape holds NaN or infinity; record it again from finite gradients.")
        if orthonormality_defect(V) > 4 * V.numel() * unit_roundoff(torch.float32):
            raise UnusableTapeError(f"{name}: the rows of the tape's basis are neither orthonormal nor zero.")
    if not any(bool(V.any()) for V in tape.basis.values()):
        raise UnusableTapeError("The tape's basis is empty for every module, so nothing of it could be routed.")
    if not any(bool(g.any()) for g in tape.gradients.values()):
        raise UnusableTapeError("All gradients of the tape are zero, so nothing of it could be routed.")


def orthonormal_rows(k: int, r: int, generator: torch.Generator) -> Tensor:
    """k Haar-random orthonormal rows in R^r; (k, r)."""
    q, upper = torch.linalg.qr(torch.randn(r, k, dtype=torch.float64, generator=generator))
    rows: Tensor = (q * upper.diagonal().sign()).T.contiguous()
    return rows


def norms_per_step(gradients: dict[str, Tensor]) -> Tensor:
    """The global norm of each step's gradients, (steps,)."""
    return torch.stack([g.double().square().sum(dim=1) for g in gradients.values()]).sum(dim=0).sqrt()


def _split_cases_of(tape: Tape) -> Iterator[SplitCase]:
    for t, gradients in enumerate(tape):
        for name, g in gradients.items():
            yield SplitCase(g=g.double(), V=tape.basis[name].double(), label=f"tape, step {t}, {name}")


def _adversarial_splits(seed: int) -> Iterator[SplitCase]:
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


def _step_case_of(tape: Tape) -> StepCase:
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


def _adapter_cases(seed: int) -> Iterator[AdapterCase]:
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
