"""What all groups of measurements are given, and the made-up vectors, gradients and bases that they run on."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from projected_grpo.basis import Basis
from projected_grpo.bench.machine import Machine
from projected_grpo.bench.shapes import ModelShape, Module

SEED = 0


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One run of the benchmark.

    modules: the adapted modules, of which the model's shape is another view.
    dtype: of the model's weights; vectors and bases are in float32, or float64 where those are, as in the adapter.
    axes: the numbers of axes k to measure with.
    tokens, batch: of a training batch, all rows together.
    budget: seconds for each group of jobs.
    """

    shape: ModelShape
    modules: list[Module]
    device: torch.device
    dtype: torch.dtype
    axes: tuple[int, ...]
    tokens: int
    batch: int
    budget: float
    machine: Machine

    @property
    def vector_dtype(self) -> torch.dtype:
        """What vectors are kept in."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    @property
    def entries(self) -> int:
        """Σ r over all modules."""
        return sum(module.r for module in self.modules)

    def inputs(self, k: int) -> tuple[Basis, dict[str, Tensor]]:
        """A basis with k axes a module, and gradients."""
        place: dict[str, Any] = {"device": self.device, "dtype": self.vector_dtype}
        return make_basis(self.modules, k, **place), make_gradients(self.modules, **place)

    def seconds_to_move(self, entries: int) -> float:
        """How long so many entries of vectors take to be read or written, at the measured bandwidth."""
        return entries * torch.finfo(self.vector_dtype).bits / 8 / self.machine.bandwidth

    def seconds_to_compute(self, operations: float) -> float:
        """How long so many floating-point operations take at the measured rate."""
        return operations / self.machine.flops


def make_basis(modules: list[Module], k: int, *, device: torch.device, dtype: torch.dtype) -> Basis:
    """Random orthonormal rows, k of them or as many as a module has room for."""
    alike: defaultdict[int, list[str]] = defaultdict(list)
    for module in modules:
        alike[module.r].append(module.name)
    draw, rows = torch.Generator().manual_seed(SEED), dict[str, Tensor]()
    for r, names in alike.items():
        normal = torch.randn(len(names), r, min(k, r), generator=draw, dtype=torch.float64)
        V = torch.linalg.qr(normal)[0].mT.to(device=device, dtype=dtype)  # (m, k, r)
        rows.update(zip(names, V.unbind(), strict=True))
    return Basis({module.name: rows[module.name] for module in modules})


def make_gradients(modules: list[Module], *, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Normal gradients of about the length that a training step sees, module → (r,)."""
    draw = torch.Generator().manual_seed(SEED + 1)
    return {
        module.name: (1e-3 * torch.randn(module.r, generator=draw)).to(device=device, dtype=dtype) for module in modules
    }


def make_vectors(gradients: dict[str, Tensor]) -> dict[str, nn.Parameter]:
    """Vectors of zeros that hold copies of the gradients."""
    vectors = {name: nn.Parameter(torch.zeros_like(g)) for name, g in gradients.items()}
    for name, vector in vectors.items():
        vector.grad = gradients[name].clone()
    return vectors
