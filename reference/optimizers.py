"""SGD and AdamW for one parameter tensor, as their papers write them.

An optimizer here is a frozen set of hyperparameters with two pure functions: `start` makes the
state of a parameter, `step` maps (parameter, gradient, state) to (parameter, state).
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

State = dict[str, Any]


class Optimizer(Protocol):
    """One step of one parameter; pure."""

    def start(self, p: Tensor) -> State:
        """The state before the first step."""

    def step(self, p: Tensor, g: Tensor, state: State) -> tuple[Tensor, State]:
        """The parameter and its state after one step on g."""


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Stochastic gradient descent with momentum.

    Momentum in the form of Sutskever et al. 2013 (ICML, section 2) as torch.optim.SGD implements it:
    the buffer starts at the first gradient, undampened. `weight_decay` is coupled (added to the
    gradient), `decoupled_decay` shrinks the parameter instead (Loshchilov & Hutter 2019, eq. 4).
    `maximize` ascends: the gradient's sign is turned before all else, so decay still shrinks.
    """

    lr: float
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    decoupled_decay: float = 0.0
    maximize: bool = False

    def start(self, p: Tensor) -> State:
        """No buffer before the first gradient."""
        return {"buffer": None}

    def step(self, p: Tensor, g: Tensor, state: State) -> tuple[Tensor, State]:
        """Coupled decay, decoupled decay, momentum."""
        g = (-g if self.maximize else g) + self.weight_decay * p
        p = p * (1 - self.lr * self.decoupled_decay)
        if self.momentum == 0:
            return p - self.lr * g, state
        buffer = g if state["buffer"] is None else self.momentum * state["buffer"] + (1 - self.dampening) * g
        direction = g + self.momentum * buffer if self.nesterov else buffer
        return p - self.lr * direction, {"buffer": buffer}


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2).

    The moments and their bias correction are Kingma & Ba 2015 (arXiv:1412.6980), algorithm 1. `amsgrad` divides by
    the largest second moment so far (Reddi et al. 2018, arXiv:1904.09237, algorithm 2), corrected like the second
    moment itself, as torch.optim.AdamW does it. `maximize` ascends.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 1e-2
    amsgrad: bool = False
    maximize: bool = False

    def start(self, p: Tensor) -> State:
        """Both moments at zero, which their bias correction assumes."""
        return {"t": 0, "m": torch.zeros_like(p), "v": torch.zeros_like(p), "v_max": torch.zeros_like(p)}

    def step(self, p: Tensor, g: Tensor, state: State) -> tuple[Tensor, State]:
        """Moments, bias correction, decay."""
        b1, b2 = self.betas
        g = -g if self.maximize else g
        t = state["t"] + 1
        m = b1 * state["m"] + (1 - b1) * g
        v = b2 * state["v"] + (1 - b2) * g * g
        v_max = torch.maximum(state["v_max"], v) if self.amsgrad else v
        m_hat = m / (1 - b1**t)
        v_hat = v_max / (1 - b2**t)
        p = p * (1 - self.lr * self.weight_decay) - self.lr * m_hat / (v_hat.sqrt() + self.eps)
        return p, {"t": t, "m": m, "v": v, "v_max": v_max}
