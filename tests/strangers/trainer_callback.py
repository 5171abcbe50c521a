"""transformers' Trainer with a callback that routes between the backward pass and the optimizer's step.

The Trainer owns the loop, so it runs in a thread of its own, which stands still in the forward pass until it is handed
the next gradient. Only one thread moves at a time: a new Trainer resets state that all Trainers of a process share.
"""

import queue
import tempfile
import threading

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from invariants import StepSetting, Subject, all_but
from reference import AdamW

# Two states of an optimizer that is not linear: the sum, the span and the leaks are not promised.
NOT_CLAIMED = ("optimizer.keeps_sum", "optimizer.span", "optimizer.update_leak", "optimizer.displacement_leak")
ADAMW = AdamW(lr=0.02)
SETTING = StepSetting(optimizer="AdamW", reference=ADAMW, claims=all_but(*NOT_CLAIMED))


class TwoVectors(nn.Module):
    """Per module a deployed and a quarantine vector; the loss is linear, so its gradient is what is asked for."""

    def __init__(self, start) -> None:
        super().__init__()
        self.deployed = nn.ParameterList([nn.Parameter(p) for p in start.values()])
        self.quarantine = nn.ParameterList([nn.Parameter(torch.zeros_like(p)) for p in start.values()])
        self.waiting, self.gradients = queue.SimpleQueue(), queue.SimpleQueue()

    def forward(self, index):
        self.waiting.put(True)
        gradients = self.gradients.get()
        parts = zip(self.deployed, self.quarantine, gradients, strict=True)
        return {"loss": sum(((d + q) * g).sum() for d, q, g in parts)}


class Route(TrainerCallback):
    """Splits what has accumulated, after the Trainer has clipped it."""

    def __init__(self, model, basis, intervention) -> None:
        self.model, self.basis, self.intervention = model, basis, intervention

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        for d, q, V in zip(self.model.deployed, self.model.quarantine, self.basis, strict=True):
            removed = V.T @ torch.relu(V @ d.grad)
            d.grad = d.grad if self.intervention == "none" else d.grad - removed
            q.grad = removed if self.intervention == "route" else None

    def on_optimizer_step(self, args, state, control, **kwargs):  # the Trainer clears all gradients after this
        self.fed = [[p.grad for p in vectors] for vectors in (self.model.deployed, self.model.quarantine)]


class RouteWithZeros(Route):
    """Never sets a gradient to None, so that an optimizer with weight decay or momentum would go on moving it."""

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        super().on_pre_optimizer_step(args, state, control, **kwargs)
        for q in self.model.quarantine:
            q.grad = torch.zeros_like(q) if q.grad is None else q.grad


def make_loop(start, basis, *, intervention, max_norm, callback=Route):
    model = TwoVectors(start)
    for q in model.quarantine:  # equal to the deployed one's, and would be clipped with it
        q.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    arguments = TrainingArguments(
        output_dir=tempfile.gettempdir(), max_steps=1000, per_device_train_batch_size=1, max_grad_norm=max_norm or 0.0,
        lr_scheduler_type="constant", save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True,
        use_cpu=True, remove_unused_columns=False,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=ADAMW.lr, weight_decay=ADAMW.weight_decay)
    route = callback(model, [*basis.values()], intervention)
    trainer = Trainer(
        model, arguments, train_dataset=[{"index": i} for i in range(1000)], optimizers=(optimizer, None),
        callbacks=[route],
    )  # fmt: skip
    threading.Thread(target=trainer.train, daemon=True).start()
    model.waiting.get(timeout=60)

    def step(gradients):
        if not all(g.isfinite().all() for g in gradients.values()):
            raise ValueError("a gradient is not finite")
        model.gradients.put([*gradients.values()])
        model.waiting.get(timeout=60)
        shown = (model.deployed, model.quarantine, *route.fed)
        return tuple(dict(zip(start, part, strict=True)) for part in shown)

    return step


def correct() -> Subject:
    return Subject(name="a Trainer with a callback", routed_step={SETTING: make_loop})


def broken() -> Subject:
    def with_zeros(start, basis, **arm):
        return make_loop(start, basis, **arm, callback=RouteWithZeros)

    return Subject(name="a Trainer with a callback, broken", routed_step={SETTING: with_zeros})
