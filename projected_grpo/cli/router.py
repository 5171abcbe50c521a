"""RoutedOptimizer as the routed step under test, for the measurement of optimizers."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from invariants.optimizers import Arm, Candidate
from projected_grpo.basis import Basis
from projected_grpo.optimizer import RoutedOptimizer
from projected_grpo.vectors import VectorPair


class Routed:
    """One arm: two vectors a module, stepped by a RoutedOptimizer around the candidate."""

    def __init__(
        self, candidate: Candidate, arm: Arm, start: Mapping[str, Tensor], basis: Mapping[str, Tensor]
    ) -> None:
        self.deployed = {name: nn.Parameter(p.clone()) for name, p in start.items()}
        self.quarantine = {name: nn.Parameter(torch.zeros_like(p)) for name, p in start.items()}
        dtype = next(iter(start.values())).dtype
        base = candidate.on([*self.deployed.values(), *self.quarantine.values()], dtype)
        pairs = {name: VectorPair(p, self.quarantine[name]) for name, p in self.deployed.items()}
        self.optimizer = RoutedOptimizer(
            base, pairs, Basis(basis), intervention=arm.intervention, space=arm.space, clip=arm.clip,
            max_norm=arm.max_norm,
        )  # fmt: skip

    def step(self, g: Mapping[str, Tensor]) -> None:
        """One routed step on accumulated gradients, name -> (r,)."""
        for name, p in self.deployed.items():
            p.grad = g[name].clone()
        self.optimizer.step()

    def refresh(self, basis: Mapping[str, Tensor]) -> None:
        """Uses another basis from the next step on."""
        self.optimizer.refresh(Basis(basis))
