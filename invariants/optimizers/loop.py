"""The specification's routed step with a torch optimizer in the place of the specification's own, on given gradients.

Per vector of the model there are two, `deployed` and `quarantine`, and the optimizer holds both. In gradient space what
it is fed is split; as the gradients are given, that is known for all steps beforehand. In update and displacement space
it moves the combined point, which it finds in the deployed vector, on the unsplit gradient; what it did is split.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from invariants.optimizers.candidate import Candidate
from invariants.optimizers.paths import Path, seeded
from invariants.optimizers.runs import SEED, Running, Variation, run
from invariants.optimizers.sequences import Routed, Sequences, Values
from reference import ClipPolicy, Intervention, Space, split


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Which routed step: intervention, space, and the clip, whose limit is None where nothing is clipped."""

    intervention: Intervention
    space: Space = "gradient"
    clip: ClipPolicy = "before"
    max_norm: float | None = None


@dataclass(frozen=True, kw_only=True)
class RoutedPath:
    """Where the vectors were before the first step and after each; vector -> (steps + 1, r)."""

    deployed: Path
    quarantine: Path

    @property
    def combined(self) -> Path:
        """What the training model runs at."""
        return {name: path + self.quarantine[name] for name, path in self.deployed.items()}

    def up_to(self, steps: int) -> "RoutedPath":
        """The first steps alone."""
        return RoutedPath(
            deployed={name: path[: steps + 1] for name, path in self.deployed.items()},
            quarantine={name: path[: steps + 1] for name, path in self.quarantine.items()},
        )


class RoutedLoop(Protocol):
    """A routed step: the vectors of one arm, and what moves them."""

    @property
    def deployed(self) -> Mapping[str, Tensor]:
        """name -> (r,)."""

    @property
    def quarantine(self) -> Mapping[str, Tensor]:
        """name -> (r,)."""

    def step(self, g: Mapping[str, Tensor], /) -> None:
        """One step on the accumulated gradients, name -> (r,)."""

    def refresh(self, basis: Values, /) -> None:
        """Uses another basis from the next step on."""


def routed_run(candidate: Candidate, arm: Arm, on: Routed) -> RoutedPath:
    """An arm on all gradients of `on`; raises whatever the optimizer raises."""
    if arm.intervention == "none" or arm.space == "gradient":
        return _in_gradient_space(candidate, arm, on)
    with seeded(SEED):
        return watched(PointLoop(candidate, arm, on.start, on.basis), on.having(clipped_before(arm, on)))


def _in_gradient_space(candidate: Candidate, arm: Arm, on: Routed) -> RoutedPath:
    kept, removed = fed(arm, on)
    silent = Variation() if arm.intervention == "route" else Variation(silent=tuple(map(quarantined, removed)))
    zeros = {quarantined(name): torch.zeros_like(p) for name, p in on.start.items()}
    gradients = {**kept, **{quarantined(name): g for name, g in removed.items()}}
    path = run(candidate, {**on.start, **zeros}, gradients, silent)
    return RoutedPath(
        deployed={name: path[name] for name in on.start},
        quarantine={name: path[quarantined(name)] for name in on.start},
    )


def quarantined(name: str) -> str:
    """How the second vector is called beside the first."""
    return f"quarantine of {name}"


def fed(arm: Arm, on: Routed) -> tuple[Sequences, Sequences]:
    """What an arm feeds the deployed and the quarantine vectors in gradient space; vector -> (steps, r), twice."""
    g = clipped_before(arm, on)
    if arm.intervention == "none":
        return g, g
    removed = {name: removed_along(g[name], on.bases(name)) for name in g}
    kept = {name: g[name] - removed[name] for name in g}
    if arm.clip == "joint" and arm.max_norm is not None:
        parts = [*kept.values(), *(removed.values() if arm.intervention == "route" else ())]
        factor = clip_factors(parts, arm.max_norm)
        kept, removed = ({name: factor * part for name, part in side.items()} for side in (kept, removed))
    return kept, removed


def clipped_before(arm: Arm, on: Routed) -> Sequences:
    """The gradients as they reach the split; under `joint` the clip comes after it, and without a split is the same."""
    if arm.max_norm is None or (arm.clip == "joint" and arm.intervention != "none"):
        return on.gradients
    factor = clip_factors(list(on.gradients.values()), arm.max_norm)
    return {name: factor * g for name, g in on.gradients.items()}


def removed_along(g: Tensor, bases: list[tuple[int, Tensor]]) -> Tensor:
    """The hack-ward part of every gradient, relu(V g) V; g (steps, r), each basis (k, r) up to its step."""
    parts, begin = [], 0
    for end, V in bases:
        parts.append(torch.relu(g[begin:end] @ V.T) @ V)
        begin = end
    return torch.cat(parts)


def clip_factors(parts: list[Tensor], limit: float) -> Tensor:
    """min(1, limit / norm) of every step; parts (steps, r) -> (steps, 1)."""
    norms = torch.stack([part.square().sum(dim=1) for part in parts]).sum(dim=0).sqrt()
    return (limit / norms).clamp(max=1.0)[:, None]


class PointLoop:
    """Update or displacement space, step by step."""

    def __init__(self, candidate: Candidate, arm: Arm, start: Values, basis: Values) -> None:
        self.arm, self.basis, self.start = arm, basis, start
        silent = tuple(map(quarantined, start))
        zeros = {name: torch.zeros_like(start[name.removeprefix(quarantined(""))]) for name in silent}
        self.running = Running(candidate, {**start, **zeros}, Variation(silent=silent))
        self.deployed = {name: self.running.vectors[name] for name in start}
        self.quarantine = {name: self.running.vectors[quarantined(name)] for name in start}
        self.point = {name: p.clone() for name, p in start.items()}

    def refresh(self, basis: Values) -> None:
        """Splits along another basis from the next step on."""
        self.basis = basis

    @torch.no_grad()
    def step(self, g: Mapping[str, Tensor]) -> None:
        """The optimizer moves the point; its update, or its displacement, is split and written to the two vectors."""
        before = {name: p.clone() for name, p in self.deployed.items()}
        for name, point in self.point.items():
            self.deployed[name].copy_(point)
        with torch.enable_grad():
            self.running.step(g)
        for name, vector in self.deployed.items():
            came_from = self.point[name] if self.arm.space == "update" else self.start[name]
            self.point[name] = vector.detach().clone()
            kept, removed, _ = split(came_from - self.point[name], self.basis[name])
            vector.copy_((before[name] if self.arm.space == "update" else self.start[name]) - kept)
            if self.arm.intervention == "route":
                quarantine = self.quarantine[name]
                quarantine.copy_(quarantine - removed if self.arm.space == "update" else -removed)


def watched(loop: RoutedLoop, on: Routed) -> RoutedPath:
    """Steps a loop through the gradients, and looks at its vectors before the first step and after each."""
    steps, sides = len(next(iter(on.gradients.values()))), (loop.deployed, loop.quarantine)
    paths: list[dict[str, list[Tensor]]] = [{name: [] for name in on.start} for _ in sides]
    for t in range(steps + 1):
        for path, vectors in zip(paths, sides, strict=True):
            for name, values in path.items():
                values.append(vectors[name].detach().clone())
        if t == on.refreshed_after < steps:
            loop.refresh(on.refreshed)
        if t < steps:
            loop.step({name: g[t] for name, g in on.gradients.items()})
    deployed, quarantine = ({name: torch.stack(values) for name, values in path.items()} for path in paths)
    return RoutedPath(deployed=deployed, quarantine=quarantine)
