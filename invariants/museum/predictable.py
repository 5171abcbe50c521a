"""Loops whose gate is decided by the past, and what goes wrong with its memory."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from invariants.museum.loop import SETTING, Gradients, Loop, Parts, broken_loop, factory
from reference import SplitRule

PREDICTABLE = replace(SETTING, rule=SplitRule(gate="predictable"))


class PredictableLoop(Loop):
    """Split along the axes that are open, then remember."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.means = {name: V.new_zeros(len(V)) for name, V in self.basis.items()}

    def split_all(self, g: Gradients) -> Parts:
        if self.intervention == "none":
            return super().split_all(g)
        return {name: self.split_module(name, t) for name, t in g.items()}

    def split_module(self, name: str, g: Tensor) -> tuple[Tensor, Tensor | None]:
        V = self.basis[name]
        c = V @ g
        removed = V.T @ torch.where(self.is_open(self.means[name], c), c, 0)
        self.remember(name, c)
        return g - removed, removed if self.intervention == "route" else None

    def is_open(self, mean: Tensor, c: Tensor) -> Tensor:
        return mean > 0

    def remember(self, name: str, c: Tensor) -> None:
        self.means[name] = 0.9 * self.means[name] + 0.1 * c

    def refresh(self, basis: Gradients) -> None:
        self.basis = basis
        self.means = {name: torch.zeros_like(mean) for name, mean in self.means.items()}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "means": self.means}

    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict(state)
        self.means = state["means"]


CORRECT = {PREDICTABLE: factory(PredictableLoop)}


@broken_loop(
    "the gate has seen the step that it decides about",
    caught_by="optimizer.noise_drift",
    setting=PREDICTABLE,
    also={"optimizer.gate_starts_closed": "the first gradient opens the axes along which it is hack-ward"},
)
class SeesTheStep(PredictableLoop):
    def is_open(self, mean: Tensor, c: Tensor) -> Tensor:
        return super().is_open(0.9 * mean + 0.1 * c, c)


@broken_loop("a refresh keeps the gate of the old axes", caught_by="optimizer.gate_starts_closed", setting=PREDICTABLE)
class KeepsTheGate(PredictableLoop):
    def refresh(self, basis: Gradients) -> None:
        self.basis = basis


@broken_loop("the gate's memory is missing from the checkpoint", caught_by="optimizer.resumption", setting=PREDICTABLE)
class GateNotSaved(PredictableLoop):
    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict({**state, "means": self.means})


@broken_loop("erase's gate remembers what was kept", caught_by="optimizer.erase_match", setting=PREDICTABLE)
class RemembersWhatWasKept(PredictableLoop):
    def remember(self, name: str, c: Tensor) -> None:
        kept = torch.where(self.is_open(self.means[name], c), 0, c)
        super().remember(name, kept if self.intervention == "erase" else c)
