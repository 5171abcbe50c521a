"""A training loop over two parameter sets on torch.optim, and what goes wrong with it: each broken one overrides
one method."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from invariants.contracts import StepFactory, Stepped, Stepper, StepSetting
from invariants.museum.fault import exhibit
from invariants.subject import Subject
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
        removed = V.T @ torch.relu(V @ g)
        return g - removed, removed

    def feed(self, parts: Parts) -> None:
        for name, (kept, removed) in parts.items():
            self.deployed[name].grad = kept
            self.quarantine[name].grad = removed

    def state_dict(self) -> dict[str, Any]:
        return {"deployed": self.deployed, "quarantine": self.quarantine, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Any) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        with torch.no_grad():
            for name in self.deployed:
                self.deployed[name].copy_(state["deployed"][name])
                self.quarantine[name].copy_(state["quarantine"][name])


def factory(loop: type[Loop]) -> StepFactory:
    """Makes a fresh loop of this class whenever it is called."""

    def make(start: Gradients, basis: Gradients, *, intervention: str, max_norm: float | None) -> Stepper:
        made = loop(start, basis, intervention=intervention, max_norm=max_norm)
        return Stepper(step=made.step, state_dict=made.state_dict, load_state_dict=made.load_state_dict)

    return make


CORRECT = {SETTING: factory(Loop)}


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
        subject = lambda n: Subject(name=n, routed_step={setting: factory(broken)})  # noqa: E731
        exhibit(name, subject, caught_by=caught_by, bug=bug, also=also)
        return broken

    return show


@broken_loop("clip covers the deployed set only", caught_by="clip.covers_both", bug=1)
class ClipOfDeployedOnly(Loop):
    def parts(self, g: Gradients) -> Parts:
        parts = self.split_all(g)
        kept = self.clip({name: kept for name, (kept, _) in parts.items()})
        return {name: (kept[name], removed) for name, (_, removed) in parts.items()}


@broken_loop("erase is clipped by a norm without the removed part", caught_by="optimizer.erase_match", bug=4)
class ClipAfterSplit(Loop):
    def parts(self, g: Gradients) -> Parts:
        parts = self.split_all(g)
        factor = self.factor(t for pair in parts.values() for t in pair if t is not None)
        return {name: (kept * factor, None if h is None else h * factor) for name, (kept, h) in parts.items()}


@broken_loop("a generator of gradients is exhausted by the norm", caught_by="clip.covers_both", bug=14)
class ExhaustedGenerator(Loop):
    def clip(self, g: Gradients) -> Gradients:
        gradients = (t for t in g.values())
        factor = self.factor(gradients)
        for t in gradients:
            t *= factor
        return g


@broken_loop("clip counts the quarantine's duplicate gradient", caught_by="clip.reaches_limit")
class DuplicateCounted(Loop):
    def norm(self, gradients: Iterable[Tensor]) -> Tensor:
        norm: Tensor = torch.cat([*gradients] * 2).norm()
        return norm


@broken_loop("clip per module", caught_by="clip.common_factor")
class ClipPerModule(Loop):
    def clip(self, g: Gradients) -> Gradients:
        return {name: t * self.factor([t]) for name, t in g.items()}


@broken_loop("normalised instead of clipped", caught_by="clip.inactive_below")
class Normalised(Loop):
    def factor(self, gradients: Iterable[Tensor]) -> Tensor:
        return torch.tensor(1.0) if self.max_norm is None else self.max_norm / (self.norm(gradients) + 1e-6)


@broken_loop("an axis is in the basis twice, in the loop", caught_by="clip.vanilla_norm")
class AxisTwice(Loop):
    def split(self, g: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
        return super().split(g, torch.cat([V, V[:1]]))


@broken_loop("AdamW with two states", caught_by="optimizer.keeps_sum")
@broken_loop("AdamW turns the quarantine", caught_by="optimizer.span")
@broken_loop("AdamW turns the kept gradient", caught_by="optimizer.displacement_leak")
class AdamW(Loop):
    def optimizer_over(self, deployed: list[nn.Parameter], quarantine: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW([*deployed, *quarantine], lr=LR, weight_decay=0)


@broken_loop("weight decay on the quarantine only", caught_by="optimizer.keeps_sum", bug=10)
class DecayOfQuarantineOnly(Loop):
    def optimizer_over(self, deployed: list[nn.Parameter], quarantine: list[nn.Parameter]) -> torch.optim.Optimizer:
        groups: list[dict[str, Any]] = [{"params": deployed}, {"params": quarantine, "weight_decay": 0.1}]
        return torch.optim.SGD(groups, lr=LR, momentum=MOMENTUM)


@broken_loop("weight decay undoes anti-hack moves", caught_by="optimizer.update_leak")
class Decay(Loop):
    def optimizer_over(self, deployed: list[nn.Parameter], quarantine: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD([*deployed, *quarantine], lr=LR, momentum=MOMENTUM, weight_decay=0.1)


@broken_loop("dampening that nobody asked for", caught_by="optimizer.matches_reference")
class Dampening(Loop):
    def optimizer_over(self, deployed: list[nn.Parameter], quarantine: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD([*deployed, *quarantine], lr=LR, momentum=MOMENTUM, dampening=MOMENTUM)


@broken_loop("erase has an overshoot that route has not", caught_by="optimizer.erase_match", bug=2)
class ErasedWithOvershoot(Loop):
    def split(self, g: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
        _, removed = super().split(g, V)
        return g - (1.5 * removed if self.intervention == "erase" else removed), removed


@broken_loop("clip configured and never passed on", caught_by="clip.takes_effect", bug=14)
class ClipNeverPassedOn(Loop):
    def clip(self, g: Gradients) -> Gradients:
        return g


@broken_loop("the quarantine's gradient is zeros instead of None", caught_by="optimizer.inert_quarantine", bug=6)
class ZerosInsteadOfNone(Loop):
    def feed(self, parts: Parts) -> None:
        zeros = {name: torch.zeros_like(kept) for name, (kept, _) in parts.items()}
        super().feed(
            {name: (kept, zeros[name] if removed is None else removed) for name, (kept, removed) in parts.items()}
        )


@broken_loop("vanilla splits and puts together again", caught_by="optimizer.none_ignores_basis")
class SplitAndPutTogether(Loop):
    def split_all(self, g: Gradients) -> Parts:
        if self.intervention == "none":
            return {name: (torch.add(*self.split(t, self.basis[name])), None) for name, t in g.items()}
        return super().split_all(g)


@broken_loop("noise from the global generator", caught_by="optimizer.deterministic")
class Noise(Loop):
    def clip(self, g: Gradients) -> Gradients:
        return super().clip({name: t + 1e-3 * torch.randn_like(t) for name, t in g.items()})


@broken_loop("momentum missing from the checkpoint", caught_by="optimizer.resumption")
class MomentumNotSaved(Loop):
    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        return {**state, "optimizer": {**state["optimizer"], "state": {}}}


@broken_loop("momenta of the two sets exchanged by a restore", caught_by="optimizer.resumption", bug=13)
class MomentaExchanged(Loop):
    def load_state_dict(self, state: Any) -> None:
        saved, half = state["optimizer"], len(self.deployed)
        momenta = {(i + half) % (2 * half): momentum for i, momentum in saved["state"].items()}
        super().load_state_dict({**state, "optimizer": {**saved, "state": momenta}})


@broken_loop("non-finite gradients are not refused", caught_by="optimizer.nonfinite_gradient")
class NonFiniteAccepted(Loop):
    def refuse_non_finite(self, g: Gradients) -> None:
        pass


@broken_loop("modules without a basis are skipped", caught_by="optimizer.empty_module")
class EmptyModulesSkipped(Loop):
    def split_all(self, g: Gradients) -> Parts:
        parts = super().split_all(g)
        return {name: pair for name, pair in parts.items() if self.intervention == "none" or len(self.basis[name])}
