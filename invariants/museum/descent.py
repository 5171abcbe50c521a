"""Small correct optimizers: what the faults of optimizers are one change away from."""

from typing import Any

import torch
from torch import Tensor

Group = dict[str, Any]  # a parameter group of torch


class Descent(torch.optim.Optimizer):
    """p <- p - lr * update, where the update is the gradient, with decay and momentum if they are asked for."""

    def __init__(
        self, params: Any, lr: float = 0.1, momentum: float = 0.0, weight_decay: float = 0.0, foreach: bool = False
    ) -> None:
        keys = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "foreach": foreach}
        super().__init__(params, keys)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = self.loss(closure)
        self.refuse_non_finite()
        for group in self.param_groups:
            moving, rate = self.moving(group), self.rate(group)
            moves = [rate * self.update(p, group) for p in moving]
            (self.at_once if group["foreach"] else self.one_by_one)(moving, moves)
        return loss

    def loss(self, closure: Any) -> Any:
        with torch.enable_grad():
            return None if closure is None else closure()

    def moving(self, group: Group) -> list[Tensor]:
        return [p for p in group["params"] if p.grad is not None]

    def refuse_non_finite(self) -> None:
        if not all(g.isfinite().all() for g in self.gradients()):
            raise ValueError("a gradient is not finite")

    def gradients(self) -> list[Tensor]:
        """Of all groups."""
        return [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]

    def rate(self, group: Group) -> float:
        lr: float = group["lr"]
        return lr

    def update(self, p: Tensor, group: Group) -> Tensor:
        """Of the shape of p."""
        g = self.decayed(p, group)
        if not group["momentum"]:
            return g
        momentum: Tensor = self.state[p].setdefault("momentum", torch.zeros_like(p))
        return momentum.mul_(group["momentum"]).add_(g)

    def decayed(self, p: Tensor, group: Group) -> Tensor:
        decayed: Tensor = p.grad + group["weight_decay"] * p
        return decayed

    def one_by_one(self, moving: list[Tensor], moves: list[Tensor]) -> None:
        for p, move in zip(moving, moves, strict=True):
            p.sub_(move)

    def at_once(self, moving: list[Tensor], moves: list[Tensor]) -> None:
        torch._foreach_add_(moving, moves, alpha=-1)


class Signs(Descent):
    """Moves every coordinate just as far, whatever the size of its gradient."""

    def update(self, p: Tensor, group: Group) -> Tensor:
        return super().update(p, group).sign()
