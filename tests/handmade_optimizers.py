"""Optimizers written by hand, as their users write them: torch's interface, and nothing of ours."""

import torch
from torch.optim import Optimizer


class Descent(Optimizer):
    """Linear: heavy-ball momentum."""

    def __init__(self, params, lr=0.05, beta=0.9):
        super().__init__(params, {"lr": lr, "beta": beta})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                velocity = self.state[p].setdefault("velocity", torch.zeros_like(p))
                velocity.mul_(group["beta"]).add_(p.grad)
                p.sub_(group["lr"] * velocity)
        return loss


class SignWithMomentum(Descent):
    """Right, and not linear: every parameter by itself, each coordinate by the sign of its momentum."""

    @torch.no_grad()
    def step(self, closure=None):
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                velocity = self.state[p].setdefault("velocity", torch.zeros_like(p))
                velocity.mul_(group["beta"]).add_(p.grad)
                p.sub_(group["lr"] * velocity.sign())
        return loss


class TrustTogether(Descent):
    """Couples parameters: one step size from the norm of all gradients."""

    @torch.no_grad()
    def step(self, closure=None):
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            moving = [p for p in group["params"] if p.grad is not None]
            norm = torch.stack([p.grad.norm() for p in moving]).norm()
            for p in moving:
                p.sub_(group["lr"] * p.grad / (1 + norm))
        return loss


class WarmsUp(Descent):
    """Linear for 40 steps, and the sign of the gradient from then on."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                count = self.state[p]["count"] = self.state[p].get("count", 0) + 1
                p.sub_(group["lr"] * (p.grad if count <= 40 else p.grad.sign()))


class NeedsMatrices(Descent):
    """Steps on matrices alone."""

    def step(self, closure=None):
        assert all(p.ndim == 2 for group in self.param_groups for p in group["params"]), "a matrix is needed"
        return super().step(closure)


class NeedsClosure(Descent):
    """Has no step without a closure, and looks at the loss twice."""

    def step(self, closure):
        closure()
        return super().step(closure)


class NeedsCurvature(Descent):
    """Differentiates a second time."""

    def step(self, closure=None):
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                (curvature,) = torch.autograd.grad(p.grad.sum(), p)
                p.grad = p.grad.detach() / (1 + curvature)
        return super().step(closure)


class NeedsModel(Descent):
    """Is built on a module."""

    def __init__(self, model, lr=0.05):
        super().__init__(model.parameters(), lr)


class NeverBuilt(Optimizer):
    """Can't be made from parameters alone."""

    def __init__(self, params, horizon):
        super().__init__(params, {"lr": 1 / horizon})


class Averaged(Descent):
    """Shows the average of its parameters when it is asked to evaluate."""

    def eval(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.data.mul_(0.5)
