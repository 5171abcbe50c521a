"""What goes wrong with a training loop that splits gradients: each broken one overrides one method."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from invariants.museum.loop import (
    ADAMW,
    LR,
    MOMENTUM,
    PRESERVING,
    SETTING,
    AdamWLoop,
    Gradients,
    Loop,
    Parts,
    PreservingLoop,
    broken_loop,
    factory,
)
from invariants.registry import all_but

CORRECT = {
    SETTING: factory(Loop), PRESERVING: factory(PreservingLoop), ADAMW: factory(AdamWLoop),
}  # fmt: skip


@broken_loop(
    "clip covers the deployed set only",
    caught_by="clip.covers_both",
    bug=1,
    also={"clip.common_factor": "only one of the two sets is scaled"},
)
class ClipOfDeployedOnly(Loop):
    def parts(self, g: Gradients) -> Parts:
        parts = self.split_all(g)
        kept = self.clip({name: kept for name, (kept, _) in parts.items()})
        return {name: (kept[name], removed) for name, (_, removed) in parts.items()}


@broken_loop(
    "clip reads the norm of the kept part",
    caught_by="clip.covers_both",
    also={"optimizer.empty_module": "all modules are scaled by another factor than under vanilla"},
)
class ClipByKept(Loop):
    def parts(self, g: Gradients) -> Parts:
        parts = self.split_all(g)
        factor = self.factor(kept for kept, _ in parts.values())
        return {name: (kept * factor, None if h is None else h * factor) for name, (kept, h) in parts.items()}


@broken_loop("erase is clipped by a norm without the removed part", caught_by="optimizer.erase_match", bug=4)
class ClipAfterSplit(Loop):
    def parts(self, g: Gradients) -> Parts:
        parts = self.split_all(g)
        factor = self.factor(t for pair in parts.values() for t in pair if t is not None)
        return {name: (kept * factor, None if h is None else h * factor) for name, (kept, h) in parts.items()}


@broken_loop(
    "a generator of gradients is exhausted by the norm",
    caught_by="clip.covers_both",
    bug=14,
    also={"clip.takes_effect": "after the norm nothing is left to be scaled"},
)
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


@broken_loop(
    "clip per module",
    caught_by="clip.common_factor",
    also={
        "clip.covers_both": "each module is within the limit, all together are not",
    },
)
class ClipPerModule(Loop):
    def clip(self, g: Gradients) -> Gradients:
        return {name: t * self.factor([t]) for name, t in g.items()}


@broken_loop(
    "normalised instead of clipped",
    caught_by="clip.inactive_below",
    also={"clip.reaches_limit": "1e-6 is added to the norm, and the setting says that nothing is"},
)
class Normalised(Loop):
    def factor(self, gradients: Iterable[Tensor]) -> Tensor:
        return torch.tensor(1.0) if self.max_norm is None else self.max_norm / (self.norm(gradients) + 1e-6)


@broken_loop("an axis is in the basis twice, in the loop", caught_by="clip.vanilla_norm")
class AxisTwice(Loop):
    def split(self, g: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
        return super().split(g, torch.cat([V, V[:1]]))


@broken_loop(
    "AdamW with two states",
    caught_by="optimizer.keeps_sum",
    also={"optimizer.span": "each set has a preconditioner of its own"},
)
@broken_loop("AdamW turns the quarantine", caught_by="optimizer.span")
@broken_loop(
    "AdamW turns the kept gradient",
    caught_by="optimizer.displacement_leak",
    also={"optimizer.span": "the quarantine is turned too"},
)
class AdamW(AdamWLoop):
    pass


@broken_loop(
    "AdamW with two states claims to keep the sum",
    caught_by="optimizer.keeps_sum",
    setting=replace(ADAMW, claims=ADAMW.claims and ADAMW.claims | {"optimizer.keeps_sum"}),
    bug=3,
)
class AdamWClaimsTheSum(AdamWLoop):
    pass


@broken_loop(
    "one-sided routing of gradients claims not to ratchet",
    caught_by="optimizer.no_ratchet",
    setting=replace(SETTING, claims=all_but()),
    bug=45,
)
class ClaimsNotToRatchet(Loop):
    pass


@broken_loop(
    "one decision for all axes",
    caught_by="optimizer.noise_rectified",
    also={
        "optimizer.displacement_leak": "hack-ward axes pass with those that outweigh them",
        "optimizer.refresh_update_leak": "so they do after a refresh",
    },
)
class OneDecisionForAll(Loop):
    def split(self, g: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
        c = V @ g
        removed = V.T @ (c if c.sum() > 0 else 0 * c)
        return g - removed, removed


@broken_loop("weight decay on the quarantine only", caught_by="optimizer.keeps_sum", bug=10)
class DecayOfQuarantineOnly(Loop):
    def optimizer_over(self, deployed: list[nn.Parameter], quarantine: list[nn.Parameter]) -> torch.optim.Optimizer:
        groups: list[dict[str, Any]] = [{"params": deployed}, {"params": quarantine, "weight_decay": 0.1}]
        return torch.optim.SGD(groups, lr=LR, momentum=MOMENTUM)


@broken_loop(
    "weight decay undoes anti-hack moves",
    caught_by="optimizer.update_leak",
    also={
        "optimizer.displacement_leak": "from a start away from zero, decay alone moves hack-ward",
        "optimizer.noise_rectified": "decay takes back a part of what has drifted",
    },
)
class Decay(Loop):
    def optimizer_over(self, deployed: list[nn.Parameter], quarantine: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD([*deployed, *quarantine], lr=LR, momentum=MOMENTUM, weight_decay=0.1)


@broken_loop(
    "dampening that nobody asked for",
    caught_by="optimizer.matches_reference",
    also={"optimizer.noise_rectified": "dampened gradients add up to less drift"},
)
class Dampening(Loop):
    def optimizer_over(self, deployed: list[nn.Parameter], quarantine: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD([*deployed, *quarantine], lr=LR, momentum=MOMENTUM, dampening=MOMENTUM)


@broken_loop(
    "route forces the settings of its split",
    caught_by="optimizer.erase_match",
    setting=PRESERVING,
    bug=2,
)
class RouteForcesItsSettings(PreservingLoop):
    def split(self, g: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
        if self.intervention == "route":
            self.overshoot, self.preserves = 1.0, False
        return super().split(g, V)


@broken_loop("erase has an overshoot that route has not", caught_by="optimizer.erase_match")
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


@broken_loop(
    "noise from the global generator",
    caught_by="optimizer.deterministic",
    also={"clip.vanilla_norm": "noise makes the gradient longer"},
)
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


@broken_loop("norm after the clip logged as the one before it", caught_by="clip.logged_norms", bug=15)
class NormLoggedAfterTheClip(Loop):
    def logged(self, g: Gradients, fed: list[Tensor]) -> dict[str, float]:
        return super().logged(self.clip(g), fed)


@broken_loop("signed sum instead of relu before the norm", caught_by="split.cos_pre", bug=9)
class SignedSum(Loop):
    def hackward(self, c: Gradients) -> Tensor:
        total: Tensor = torch.relu(torch.cat([torch.zeros(1), *c.values()]).sum())
        return total


@broken_loop("split per micro-batch and then summed", caught_by="optimizer.accumulation", bug=5)
class SplitPerMicroBatch(Loop):
    def parts_of(self, micro_batches: list[Gradients]) -> Parts:
        parts = [self.parts(g) for g in micro_batches]
        kept = self.total([{name: kept for name, (kept, _) in part.items()} for part in parts])
        if self.intervention != "route":
            return {name: (t, None) for name, t in kept.items()}
        removed = self.total([{n: r for n, (_, r) in part.items() if r is not None} for part in parts])
        return {name: (t, removed[name]) for name, t in kept.items()}


@broken_loop("momentum carries what the old basis let through", caught_by="optimizer.refresh_update_leak", bug=11)
class MomentumOfTheOldBasis(Loop):
    def refresh(self, basis: Gradients) -> None:
        self.basis = basis


class ForeachForgetsMomentum(torch.optim.SGD):
    """Several tensors are stepped at once, on a path of its own."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        moving = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        if len(moving) == 1:
            return super().step(closure)
        torch._foreach_add_(moving, [p.grad for p in moving if p.grad is not None], alpha=-LR)
        return None


@broken_loop(
    "the foreach path has no momentum",
    caught_by="optimizer.per_module",
    bug=13,
    also={"optimizer.noise_rectified": "without momentum gradients add up to less drift"},
)
class ForeachPathDiffers(Loop):
    def optimizer_over(self, deployed: list[nn.Parameter], quarantine: list[nn.Parameter]) -> torch.optim.Optimizer:
        return ForeachForgetsMomentum([*deployed, *quarantine], lr=LR, momentum=MOMENTUM)


@broken_loop("the vector is gauged instead of its displacement", caught_by="optimizer.drift_gauge")
class GaugedFromZero(Loop):
    def displacement(self) -> Gradients:
        return {name: p.detach() for name, p in self.deployed.items()}
