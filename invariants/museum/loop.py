"""A training loop over two parameter sets on torch.optim: what the faults of routed steps are one change away from."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from invariants.contracts import StepFactory, Stepped, Stepper, StepSetting
from invariants.museum.split import rescaled
from invariants.museum.subjects import exhibit
from invariants.registry import all_but
from invariants.subject import Subject
from reference import SGD, AdamW, SplitRule, drift

LR, MOMENTUM = 0.1, 0.9
SETTING = StepSetting(optimizer="SGD", reference=SGD(lr=LR, momentum=MOMENTUM), clip_epsilon=0.0)
PRESERVING = StepSetting(
    optimizer="SGD", reference=SETTING.reference, clip=None, rule=SplitRule(overshoot=1.5, preserve_magnitude=True)
)
TURNED = ("keeps_sum", "span", "update_leak", "displacement_leak", "refresh_update_leak", "no_ratchet")
ADAMW = StepSetting(
    optimizer="AdamW", reference=AdamW(lr=LR, weight_decay=0), clip_epsilon=0.0,
    claims=all_but(*(f"optimizer.{name}" for name in TURNED)),
)  # fmt: skip

Gradients = dict[str, Tensor]  # module -> (r,)
Parts = dict[str, tuple[Tensor, Tensor | None]]  # module -> what the deployed and the quarantine vector are fed


class Loop:
    """Add up, clip, split, feed, step."""

    overshoot, preserves = 1.0, False

    def __init__(self, start: Gradients, basis: Gradients, *, intervention: str, max_norm: float | None) -> None:
        self.basis, self.intervention, self.max_norm = basis, intervention, max_norm
        self.start = {name: p.clone() for name, p in start.items()}
        self.waiting: list[Gradients] = []
        self.deployed = {name: nn.Parameter(p) for name, p in start.items()}
        self.quarantine = {name: nn.Parameter(torch.zeros_like(p)) for name, p in start.items()}
        self.optimizer = self.optimizer_over([*self.deployed.values()], [*self.quarantine.values()])

    def optimizer_over(self, deployed: list[nn.Parameter], quarantine: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD([*deployed, *quarantine], lr=LR, momentum=MOMENTUM)

    def accumulate(self, g: Gradients) -> None:
        self.waiting.append(g)

    def step(self, g: Gradients) -> Stepped:
        micro_batches, self.waiting = [*self.waiting, g], []
        accumulated = self.total(micro_batches)
        self.refuse_non_finite(accumulated)
        self.feed(self.parts_of(micro_batches))
        self.move()
        deployed_grad, quarantine_grad = (
            {name: p.grad for name, p in vectors.items()} for vectors in (self.deployed, self.quarantine)
        )
        fed = [t for part in (deployed_grad, quarantine_grad) for t in part.values() if t is not None]
        return Stepped(self.deployed, self.quarantine, deployed_grad, quarantine_grad, self.logged(accumulated, fed))

    def total(self, micro_batches: list[Gradients]) -> Gradients:
        first, *rest = micro_batches
        return {name: sum((g[name] for g in rest), start=t) for name, t in first.items()}

    def refuse_non_finite(self, g: Gradients) -> None:
        if not all(t.isfinite().all() for t in g.values()):
            raise ValueError("a gradient is not finite")

    def parts_of(self, micro_batches: list[Gradients]) -> Parts:
        return self.parts(self.total(micro_batches))

    def parts(self, g: Gradients) -> Parts:
        return self.split_all(self.clip(g))

    def clip(self, g: Gradients) -> Gradients:
        factor = self.factor(g.values())
        return {name: t * factor for name, t in g.items()}

    def factor(self, gradients: Iterable[Tensor]) -> Tensor:
        """What scales them to max_norm, at most 1; ()."""
        limit = float("inf") if self.max_norm is None else self.max_norm
        factor: Tensor = (limit / self.norm(gradients)).clamp(max=1)
        return factor

    def norm(self, gradients: Iterable[Tensor]) -> Tensor:
        norm: Tensor = torch.cat([*gradients]).norm()
        return norm

    def split_all(self, g: Gradients) -> Parts:
        if self.intervention == "none":
            return {name: (t, None) for name, t in g.items()}
        erases = self.intervention == "erase"
        parts = {name: self.split(t, self.basis[name]) for name, t in g.items()}
        return {name: (kept, None if erases else removed) for name, (kept, removed) in parts.items()}

    def split(self, g: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
        removed = self.overshoot * (V.T @ torch.relu(V @ g))
        kept = g - removed
        return rescaled(kept, like=g) if self.preserves else kept, removed

    def feed(self, parts: Parts) -> None:
        for name, (kept, removed) in parts.items():
            self.deployed[name].grad = kept
            self.quarantine[name].grad = removed

    def move(self) -> None:
        self.optimizer.step()

    def refresh(self, basis: Gradients) -> None:
        """The next step splits along `basis`, and so is what the momentum still carries."""
        self.basis = basis
        momenta = {name: self.optimizer.state[p].get("momentum_buffer") for name, p in self.deployed.items()}
        for name, (kept, removed) in self.split_all({n: m for n, m in momenta.items() if m is not None}).items():
            self.optimizer.state[self.deployed[name]]["momentum_buffer"] = kept
            if removed is not None:
                self.optimizer.state[self.quarantine[name]]["momentum_buffer"] += removed

    def logged(self, g: Gradients, fed: list[Tensor]) -> dict[str, float]:
        gauges = drift(self.displacement(), {name: q.detach() for name, q in self.quarantine.items()}, self.basis)
        covered = {name: V for name, V in self.basis.items() if len(V)}
        whole = torch.cat([g[name] for name in covered]).norm() if covered else torch.ones(())
        return {
            "grad_norm_pre_clip": float(torch.cat([*g.values()]).norm()),
            "grad_norm_post_clip": float(torch.cat(fed).norm()),
            "cos_pre": float(self.hackward({name: V @ g[name] for name, V in covered.items()}) / whole),
            "drift_ratio": gauges.ratio,
            "drift_opposition": gauges.opposition,
        }

    def hackward(self, c: Gradients) -> Tensor:
        length: Tensor = torch.relu(torch.cat([torch.zeros(1), *c.values()])).norm()
        return length

    def displacement(self) -> Gradients:
        return {name: p.detach() - self.start[name] for name, p in self.deployed.items()}

    def state_dict(self) -> dict[str, Any]:
        return {
            "start": self.start, "deployed": self.deployed, "quarantine": self.quarantine,
            "optimizer": self.optimizer.state_dict(),
        }  # fmt: skip

    def load_state_dict(self, state: Any) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.start = state["start"]
        with torch.no_grad():
            for name in self.deployed:
                self.deployed[name].copy_(state["deployed"][name])
                self.quarantine[name].copy_(state["quarantine"][name])


class PreservingLoop(Loop):
    overshoot, preserves = 1.5, True


class AdamWLoop(Loop):
    def optimizer_over(self, deployed: list[nn.Parameter], quarantine: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW([*deployed, *quarantine], lr=LR, weight_decay=0)


def factory(loop: type[Loop]) -> StepFactory:
    """Makes a fresh loop of this class whenever it is called."""

    def make(start: Gradients, basis: Gradients, *, intervention: str, max_norm: float | None) -> Stepper:
        made = loop(start, basis, intervention=intervention, max_norm=max_norm)
        return Stepper(
            step=made.step, state_dict=made.state_dict, load_state_dict=made.load_state_dict,
            accumulate=made.accumulate, refresh=made.refresh,
        )  # fmt: skip

    return make


def broken_loop(
    name: str,
    *,
    caught_by: str,
    setting: StepSetting = SETTING,
    bug: int | None = None,
    also: Mapping[str, str] | None = None,
) -> Callable[[type[Loop]], type[Loop]]:
    """Puts a loop on show that pretends to be of `setting`."""

    def show(broken: type[Loop]) -> type[Loop]:
        exhibit(
            name,
            lambda n: Subject(name=n, routed_step={setting: factory(broken)}),
            caught_by=caught_by,
            bug=bug,
            also=also,
        )
        return broken

    return show
