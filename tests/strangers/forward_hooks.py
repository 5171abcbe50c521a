"""Forward hooks on the Linears of a model, and a training loop written by hand."""

from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from invariants import AdaptedLinear, StepSetting, Subject
from reference import SGD


class Steering(nn.Module):
    """Two vectors along the singular directions of a Linear, added to what it returns by a forward hook."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        linear.requires_grad_(False)
        U, S, Vh = torch.linalg.svd(linear.weight.double(), full_matrices=False)
        self.U, self.Vh = U.to(linear.weight.dtype), Vh.to(linear.weight.dtype)
        self.deployed = nn.Parameter(torch.zeros_like(S, dtype=linear.weight.dtype))
        self.quarantine = nn.Parameter(torch.zeros_like(self.deployed))
        self.active = {"deployed", "quarantine"}
        linear.register_forward_hook(self.steer)

    def steer(self, linear, inputs, output):
        delta = sum((getattr(self, name) for name in sorted(self.active)), start=torch.zeros_like(self.deployed))
        return output + (inputs[0] @ self.Vh.T * delta) @ self.U.T if self.active else output

    @contextmanager
    def only(self, *names):
        before, self.active = self.active, self.active & set(names)
        try:
            yield
        finally:
            self.active = before


class SteeringThatForgets(Steering):
    """An exception inside an evaluation leaves the model ablated."""

    @contextmanager
    def only(self, *names):
        before, self.active = self.active, self.active & set(names)
        yield
        self.active = before


def adapt(weight, bias, *, steering=Steering):
    linear = nn.Linear(*reversed(weight.shape), bias=bias is not None, dtype=weight.dtype)
    linear.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias})
    vectors = steering(linear)
    return AdaptedLinear(
        forward=linear, deployed=vectors.deployed, quarantine=vectors.quarantine,
        ablated=lambda: vectors.only("deployed"), as_base=vectors.only, weight=lambda: linear.weight,
    )  # fmt: skip


def make_loop(start, basis, *, intervention, max_norm, clip_late=False):
    linears = {name: nn.Linear(len(p), len(p), bias=False, dtype=p.dtype) for name, p in start.items()}
    for linear in linears.values():
        nn.init.eye_(linear.weight)
    vectors = {name: Steering(linear) for name, linear in linears.items()}
    for name, p in start.items():
        vectors[name].deployed.data.copy_(p)
    deployed = [v.deployed for v in vectors.values()]
    optimizer = torch.optim.SGD([*deployed, *(v.quarantine for v in vectors.values())], lr=0.05, momentum=0.9)

    def step(gradients):
        optimizer.zero_grad()
        # Any loss will do; of this one, on the identity, the gradient is the one that is asked for.
        for name, g in gradients.items():
            (linears[name](torch.eye(len(g), dtype=g.dtype)).diagonal() * g).sum().backward()
        for v in vectors.values():
            v.quarantine.grad = None
        if not all(p.grad.isfinite().all() for p in deployed):
            return show()  # as a loss scaler does: skip the step
        if max_norm is not None and not clip_late:
            clip_grad_norm_(deployed, max_norm)
        for name, v in vectors.items():
            if intervention != "none":
                removed = basis[name].T @ torch.relu(basis[name] @ v.deployed.grad)
                v.deployed.grad -= removed
                v.quarantine.grad = removed if intervention == "route" else None
        if max_norm is not None and clip_late:
            clip_grad_norm_(deployed, max_norm)
        optimizer.step()
        return show()

    def show():
        sets = ("deployed", "quarantine")
        values = [{name: getattr(v, which) for name, v in vectors.items()} for which in sets]
        return *values, *({name: p.grad for name, p in named.items()} for named in values)

    return step


SETTING = StepSetting(optimizer="SGD", reference=SGD(lr=0.05, momentum=0.9))


def correct() -> Subject:
    return Subject(name="forward hooks", routed_step={SETTING: make_loop}, adapter=adapt)


def broken() -> Subject:
    """The clip comes after the split and sees the deployed set alone; an exception leaves the ablation on."""

    def late(start, basis, **arm):
        return make_loop(start, basis, **arm, clip_late=True)

    def forgetful(weight, bias):
        return adapt(weight, bias, steering=SteeringThatForgets)

    return Subject(name="forward hooks, broken", routed_step={SETTING: late}, adapter=forgetful)
