"""Two LoRA adapters on each Linear, one of them to be deleted.

Each has factors of its own, so the two see different gradients: nobody can promise that their sum follows vanilla, or
that the quarantine stays in the span of V. What is left to promise is that deleting it gives what erasing would have.
"""

import torch
from torch import nn

from invariants import Stepper, StepSetting, Subject

RANK, WIDTH = 2, 4
CLAIMED = frozenset({
    "optimizer.erase_match", "optimizer.inert_quarantine", "optimizer.none_ignores_basis", "optimizer.deterministic",
    "optimizer.resumption", "optimizer.nonfinite_gradient", "clip.takes_effect", "clip.inactive_below",
})  # fmt: skip


class LoRA(nn.Module):
    """x (WIDTH,) -> B A x (r,), zero at the start."""

    def __init__(self, r, seed, dtype) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.A = nn.Parameter(torch.randn(RANK, WIDTH, dtype=dtype, generator=draw) / WIDTH)
        self.B = nn.Parameter(torch.zeros(r, RANK, dtype=dtype))

    def forward(self, x):
        return self.B @ (self.A @ x)


class Loop:
    def __init__(self, start, basis, *, intervention, max_norm) -> None:
        self.start, self.basis, self.intervention, self.max_norm = start, basis, intervention, max_norm
        self.deployed, self.quarantine = (
            nn.ModuleDict({name: LoRA(len(p), seed, p.dtype) for name, p in start.items()}) for seed in (1, 2)
        )
        self.optimizer = torch.optim.AdamW([*self.deployed.parameters(), *self.quarantine.parameters()], lr=0.01)

    def step(self, gradients):
        if not all(g.isfinite().all() for g in gradients.values()):
            raise ValueError("a gradient is not finite")
        gradients = self.clipped(gradients)
        self.optimizer.zero_grad()
        for name, g in gradients.items():  # what would flow into the Linear's output, masked per adapter
            removed = self.basis[name].T @ torch.relu(self.basis[name] @ g)
            self.output(self.deployed, name).backward(g if self.intervention == "none" else g - removed)
            if self.intervention == "route":
                self.output(self.quarantine, name).backward(removed)
        self.after_backward()
        self.optimizer.step()
        shown = {name: self.start[name] + self.output(self.deployed, name) for name in self.start}
        return shown, {name: self.output(self.quarantine, name) for name in self.start}

    def clipped(self, gradients):
        if self.max_norm is None:
            return gradients
        norm = torch.cat([*gradients.values()]).norm()
        return {name: g * min(1.0, self.max_norm / (float(norm) + 1e-6)) for name, g in gradients.items()}

    def after_backward(self) -> None:
        pass

    def output(self, adapters, name):
        return adapters[name](torch.ones(WIDTH, dtype=self.start[name].dtype))

    def state_dict(self):
        parts = (self.deployed, self.quarantine, self.optimizer)
        return [*(part.state_dict() for part in parts), self.start]

    def load_state_dict(self, saved) -> None:
        *states, self.start = saved
        for part, state in zip((self.deployed, self.quarantine, self.optimizer), states, strict=True):
            part.load_state_dict(state)


class ClippedAfterTheSplit(Loop):
    """As every trainer does it: whatever has a gradient is clipped together, which under erase is less."""

    def clipped(self, gradients):
        return gradients

    def after_backward(self) -> None:
        if self.max_norm is not None:
            torch.nn.utils.clip_grad_norm_([*self.deployed.parameters(), *self.quarantine.parameters()], self.max_norm)


def subject_of(name, loop) -> Subject:
    def make(start, basis, **arm):
        made = loop(start, basis, **arm)
        return Stepper(step=made.step, state_dict=made.state_dict, load_state_dict=made.load_state_dict)

    setting = StepSetting(optimizer="AdamW on a pair of LoRA", claims=CLAIMED)
    return Subject(name=name, routed_step={setting: make})


def correct() -> Subject:
    return subject_of("a pair of LoRA", Loop)


def broken() -> Subject:
    return subject_of("a pair of LoRA, broken", ClippedAfterTheSplit)
