"""Base optimizers that differ in what they are: torch's, and one with a peculiarity of one's choice."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

Build = Callable[[list[nn.Parameter]], Optimizer]


class Own(Optimizer):
    """Stochastic gradient descent with one deliberate peculiarity."""

    def __init__(self, params: Any, lr: float = 0.1, twist: str = "none") -> None:
        super().__init__(params, {"lr": lr})
        self.twist = twist

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        moving = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = sum(float(p.grad.norm()) for p in moving)
        for p in moving:
            count = self.state[p]["count"] = self.state[p].get("count", 0) + 1
            direction = p.grad
            if self.twist == "coupled":
                direction = direction / (1 + norm)
            elif self.twist == "late sign" and count > 60:
                direction = direction.sign()
            elif self.twist == "noise":
                direction = direction + 0.1 * torch.randn_like(p)
            elif self.twist == "l1":
                direction = direction + 0.01 * p.sign()
            elif self.twist == "per coordinate":
                direction = direction * torch.linspace(1, 2, p.numel(), dtype=p.dtype)
            elif self.twist == "fails":
                raise RuntimeError("needs a matrix")
            p.sub_(self.param_groups[0]["lr"] * direction)


BASES: dict[str, Build] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "decay": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.5),
    "overdampened": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=1.8),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.1),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),
    "coupled": lambda p: Own(p, twist="coupled"),
    "noise": lambda p: Own(p, twist="noise"),
    "l1": lambda p: Own(p, twist="l1"),
    "late sign": lambda p: Own(p, twist="late sign"),
    "per coordinate": lambda p: Own(p, twist="per coordinate"),
}


def vectors() -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, 2))]
