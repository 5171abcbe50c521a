"""A training loop over two parameter sets on torch.optim, and what goes wrong with it: each broken one overrides
one method."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from invariants import Stepped, Stepper, StepSetting
from reference import SGD

LR, MOMENTUM = 0.1, 0.9
SETTING = StepSetting(optimizer="SGD", reference=SGD(lr=LR, momentum=MOMENTUM), clip_epsilon=0.0)

Gradients = dict[str, Tensor]  # module -> (r,)
Parts = dict[str, tuple[Tensor, Tensor | None]]  # module -> what the deployed and the quarantine vector are fed


class Loop:
    """Clip, split, feed, step."""

    def __init__(self, start: Gradients, basis: Gradients, *, intervention: str, max_norm: float | None) -> None:
        self.basis, self.intervention, self.max_norm = basis, intervention, max_norm
        self.deployed = {name: nn.Parameter(p) for name, p in start.items()}
        self.quarantine = {name: nn.Parameter(torch.zeros_like(p)) for name, p in start.items()}
        self.optimizer = self.optimizer_over([*self.deployed.values()], [*self.quarantine.values()])

    def optimizer_over(self, deployed: list[nn.Parameter], quarantine: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD([*deployed, *quarantine], lr=LR, momentum=MOMENTUM)

    def step(self, g: Gradients) -> Stepped:
        self.refuse_non_finite(g)
        self.feed(self.parts(g))
        self.optimizer.step()
        deployed_grad, quarantine_grad = (
            {name: p.grad for name, p in vectors.items()} for vectors in (self.deployed, self.quarantine)
        )
        return Stepped(self.deployed, self.quarantine, deployed_grad, quarantine_grad)

    def refuse_non_finite(self, g: Gradients) -> None:
        if not all(t.isfinite().all() for t in g.values()):
            raise ValueError("a gradient is not finite")

    def parts(self, g: Gradients) -> Parts:
        return self.split_all(self.clip(g))

    def clip(self, g: Gradients) -> Gradients:
        factor = self.factor(g.values())
        return {name: t * factor for name, t in g.items()}

    def factor(self, gradients: Iterable[Tensor]) -> Tensor:
        """What scales them to max_norm, at most 1; ()."""
        limit = float("inf") if self.max_norm is None else self.max_norm
        return (limit / self.norm(gradients)).clamp(max=1)

    def norm(self, gradients: Iterable[Tensor]) -> Tensor:
        return torch.cat([*gradients]).norm()

    def split_all(self, g: Gradients) -> Parts:
        if self.intervention == "none":
            return {name: (t, None) for name, t in g.items()}
        parts = {name: self.split(t, self.basis[name]) for name, t in g.items()}
        if self.intervention == "erase":
            return {name: (kept, None) for name, (kept, _) in parts.items()}
        return parts

    def split(self, g: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
        removed = V.T @ torch.relu(V @ g)
        return g - removed, removed

    def feed(self, parts: Parts) -> None:
        for name, (kept, removed) in parts.items():
            self.deployed[name].grad = kept
            self.quarantine[name].grad = removed

    def state_dict(self) -> dict[str, object]:
        return {"deployed": self.deployed, "quarantine": self.quarantine, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        with torch.no_grad():
            for name in self.deployed:
                self.deployed[name].copy_(state["deployed"][name])
                self.quarantine[name].copy_(state["quarantine"][name])


def factory(loop: type[Loop]):
    """Makes a fresh loop of this class whenever it is called."""

    def make(start: Gradients, basis: Gradients, *, intervention: str, max_norm: float | None) -> Stepper:
        made = loop(start, basis, intervention=intervention, max_norm=max_norm)
        return Stepper(step=made.step, state_dict=made.state_dict, load_state_dict=made.load_state_dict)

    return make


CORRECT = {SETTING: factory(Loop)}


class ClipOfDeployedOnly(Loop):
    def parts(self, g: Gradients) -> Parts:
        parts = self.split_all(g)
        kept = self.clip({name: kept for name, (kept, _) in parts.items()})
        return {name: (kept[name], removed) for name, (_, removed) in parts.items()}


class ClipAfterSplit(Loop):
    def parts(self, g: Gradients) -> Parts:
        parts = self.split_all(g)
        factor = self.factor(t for pair in parts.values() for t in pair if t is not None)
        return {name: tuple(t if t is None else t * factor for t in pair) for name, pair in parts.items()}


class ExhaustedGenerator(Loop):
    def clip(self, g: Gradients) -> Gradients:
        gradients = (t for t in g.values())
        factor = self.factor(gradients)
        for t in gradients:
            t *= factor
        return g


class DuplicateCounted(Loop):
    def norm(self, gradients: Iterable[Tensor]) -> Tensor:
        return torch.cat([*gradients] * 2).norm()


class ClipPerModule(Loop):
    def clip(self, g: Gradients) -> Gradients:
        return {name: t * self.factor([t]) for name, t in g.items()}


class Normalised(Loop):
    def factor(self, gradients: Iterable[Tensor]) -> Tensor:
        return torch.tensor(1.0) if self.max_norm is None else self.max_norm / (self.norm(gradients) + 1e-6)


class AxisTwice(Loop):
    def split(self, g: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
        return super().split(g, torch.cat([V, V[:1]]))


class AdamW(Loop):
    def optimizer_over(self, deployed: list[nn.Parameter], quarantine: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW([*deployed, *quarantine], lr=LR, weight_decay=0)


class DecayOfQuarantineOnly(Loop):
    def optimizer_over(self, deployed: list[nn.Parameter], quarantine: list[nn.Parameter]) -> torch.optim.Optimizer:
        groups = [{"params": deployed}, {"params": quarantine, "weight_decay": 0.1}]
        return torch.optim.SGD(groups, lr=LR, momentum=MOMENTUM)


class Decay(Loop):
    def optimizer_over(self, deployed: list[nn.Parameter], quarantine: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD([*deployed, *quarantine], lr=LR, momentum=MOMENTUM, weight_decay=0.1)


class Dampening(Loop):
    def optimizer_over(self, deployed: list[nn.Parameter], quarantine: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD([*deployed, *quarantine], lr=LR, momentum=MOMENTUM, dampening=MOMENTUM)


class ErasedWithOvershoot(Loop):
    def split(self, g: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
        _, removed = super().split(g, V)
        return g - (1.5 * removed if self.intervention == "erase" else removed), removed


class ClipNeverPassedOn(Loop):
    def clip(self, g: Gradients) -> Gradients:
        return g


class ZerosInsteadOfNone(Loop):
    def feed(self, parts: Parts) -> None:
        zeros = {name: torch.zeros_like(kept) for name, (kept, _) in parts.items()}
        super().feed(
            {name: (kept, zeros[name] if removed is None else removed) for name, (kept, removed) in parts.items()}
        )


class SplitAndPutTogether(Loop):
    def split_all(self, g: Gradients) -> Parts:
        if self.intervention == "none":
            return {name: (sum(self.split(t, self.basis[name])), None) for name, t in g.items()}
        return super().split_all(g)


class Noise(Loop):
    def clip(self, g: Gradients) -> Gradients:
        return super().clip({name: t + 1e-3 * torch.randn_like(t) for name, t in g.items()})


class MomentumNotSaved(Loop):
    def state_dict(self) -> dict[str, object]:
        state = super().state_dict()
        return {**state, "optimizer": {**state["optimizer"], "state": {}}}


class MomentaExchanged(Loop):
    def load_state_dict(self, state: dict[str, object]) -> None:
        saved, half = state["optimizer"], len(self.deployed)
        momenta = {(i + half) % (2 * half): momentum for i, momentum in saved["state"].items()}
        super().load_state_dict({**state, "optimizer": {**saved, "state": momenta}})


class NonFiniteAccepted(Loop):
    def refuse_non_finite(self, g: Gradients) -> None:
        pass


class EmptyModulesSkipped(Loop):
    def split_all(self, g: Gradients) -> Parts:
        parts = super().split_all(g)
        return {name: pair for name, pair in parts.items() if self.intervention == "none" or len(self.basis[name])}
