"""Loops in which one optimizer moves the combined point, and what it did is split: its update, or all that was learned;
and what goes wrong with them."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from invariants.museum.loop import SETTING, Gradients, Loop, Parts, broken_loop, factory
from invariants.registry import all_but

UPDATE = replace(SETTING, space="update")
DISPLACEMENT = replace(SETTING, space="displacement", claims=all_but("optimizer.update_leak"))
FORGETTING = replace(
    SETTING,
    space="displacement",
    retained=0.5,
    interventions=("none", "erase"),
    claims=all_but("optimizer.update_leak", "optimizer.no_ratchet"),
)


class UpdateLoop(Loop):
    """Clip, feed the point, step, split minus the update."""

    def optimizer_over(self, deployed: list[nn.Parameter], quarantine: list[nn.Parameter]) -> torch.optim.Optimizer:
        self.point = {name: nn.Parameter(p.clone()) for name, p in self.start.items()}
        return super().optimizer_over([*self.point.values()], [])

    def split_all(self, g: Gradients) -> Parts:
        return {name: (t, None) for name, t in g.items()}

    def feed(self, parts: Parts) -> None:
        super().feed(parts)
        for name, (g, _) in parts.items():
            self.point[name].grad = g

    @torch.no_grad()
    def move(self) -> None:
        before = {name: p.clone() for name, p in self.point.items()}
        self.optimizer.step()
        for name, p in self.point.items():
            if self.intervention == "none":
                self.deployed[name].copy_(p)
            else:
                self.write(name, before[name])

    def write(self, name: str, before: Tensor) -> None:
        kept, removed = self.split(before - self.point[name], self.basis[name])
        self.deployed[name].sub_(kept)
        if self.intervention == "route":
            self.quarantine[name].sub_(removed)

    def refresh(self, basis: Gradients) -> None:
        self.basis = basis

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "point": self.point}

    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict(state)
        with torch.no_grad():
            for name, p in self.point.items():
                p.copy_(state["point"][name])


class DisplacementLoop(UpdateLoop):
    """Clip, feed the point, step, split minus the displacement."""

    def write(self, name: str, before: Tensor) -> None:
        kept, removed = self.split(self.start[name] - self.point[name], self.basis[name])
        self.deployed[name].copy_(self.start[name] - kept)
        if self.intervention == "route":
            self.quarantine[name].copy_(-removed)


class ForgettingLoop(DisplacementLoop):
    """Under erase half of what is dropped stays in the point."""

    def write(self, name: str, before: Tensor) -> None:
        super().write(name, before)
        self.point[name].copy_(torch.lerp(self.deployed[name], self.point[name], FORGETTING.retained))


CORRECT = {
    UPDATE: factory(UpdateLoop), DISPLACEMENT: factory(DisplacementLoop), FORGETTING: factory(ForgettingLoop),
}  # fmt: skip


@broken_loop("erase retains all that it should forget", caught_by="optimizer.matches_reference", setting=FORGETTING)
class RetainsAll(DisplacementLoop):
    pass


@broken_loop(
    "each step is split by itself, and the parts are added up",
    caught_by="optimizer.noise_total",
    setting=DISPLACEMENT,
    also={
        "optimizer.no_ratchet": "a step back is not set off against the step forth",
        "optimizer.refresh_displacement_leak": "what was learned before a refresh stays where it is",
        "optimizer.refresh_span": "what was routed before a refresh stays where it is",
    },
)
class AddsParts(DisplacementLoop):
    def write(self, name: str, before: Tensor) -> None:
        UpdateLoop.write(self, name, before)


class RefreshedAStepLate(UpdateLoop):
    """What a refresh brings is not looked at before the step after the next."""

    def refresh(self, basis: Gradients) -> None:
        self.fresh = basis

    def move(self) -> None:
        super().move()
        self.basis = getattr(self, "fresh", self.basis)


@broken_loop(
    "update split with the basis of a step ago", caught_by="optimizer.refresh_update_leak", setting=UPDATE, bug=46
)
class UpdateSplitWithTheOldBasis(RefreshedAStepLate):
    pass


@broken_loop(
    "displacement split with the basis of a step ago",
    caught_by="optimizer.refresh_displacement_leak",
    setting=DISPLACEMENT,
    bug=46,
    also={"optimizer.refresh_span": "the quarantine is in the span of the basis of a step ago"},
)
class DisplacementSplitWithTheOldBasis(RefreshedAStepLate, DisplacementLoop):
    pass


@broken_loop(
    "displacement measured from where the resumed loop was made",
    caught_by="optimizer.resumption",
    setting=DISPLACEMENT,
    bug=46,
)
class StartNotRestored(DisplacementLoop):
    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict({**state, "start": self.start})


@broken_loop(
    "the quarantine keeps what the last basis routed", caught_by="optimizer.refresh_span", setting=DISPLACEMENT
)
class QuarantineKeepsTheOld(DisplacementLoop):
    def refresh(self, basis: Gradients) -> None:
        super().refresh(basis)
        self.old = {name: q.detach().clone() for name, q in self.quarantine.items()}

    def write(self, name: str, before: Tensor) -> None:
        super().write(name, before)
        if hasattr(self, "old"):
            self.quarantine[name].add_(self.old[name])
