"""The routed step: clip, split, optimizer, for three interventions in three spaces.

Per adapted module there are two vectors of equal length, `deployed` and `quarantine`; the training
model runs at their sum, the deployed model at the first alone. With g the accumulated gradient:

    none   the deployed vector takes g; the quarantine has no gradient and never moves
    erase  the deployed vector takes what the split keeps; what it removes is dropped
    route  the deployed vector takes what the split keeps, the quarantine what it removes

`space` says what is split:

    gradient      g itself; each vector has an optimizer state of its own
    update        the step of ONE optimizer, run at the combined point on the unsplit g
    displacement  everything learned so far, the combined point minus its start, after each step

A descent step moves along minus the gradient, so the last two split minus the update and minus the
displacement, and negate the parts.

Under erase in the last two the optimizer's point keeps what the deployed vector is not given: nothing sees it, so
nothing stops it from growing (windup). `retained` says which share of that stays in the point after each step:

    point <- deployed + retained (point - deployed)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from reference.clip import ClipPolicy, clip_factor, global_norm, scaled
from reference.optimizers import Optimizer, State
from reference.split import DEFAULT, SplitResult, SplitRule, remembered, split

Intervention = Literal["none", "erase", "route"]
Space = Literal["gradient", "update", "displacement"]
Vectors = dict[str, Tensor]  # module name -> (r,)


@dataclass(frozen=True, kw_only=True)
class Routing:
    """Everything that decides a step besides the gradients and the basis."""

    optimizer: Optimizer
    intervention: Intervention = "route"
    space: Space = "gradient"
    clip: ClipPolicy = "before"
    max_norm: float | None = None
    rule: SplitRule = DEFAULT
    retained: float = 1.0

    def __post_init__(self) -> None:
        if self.retained != 1 and (self.space == "gradient" or self.intervention != "erase"):
            raise ValueError("only erase outside gradient space has a part that its point may retain")
        if self.space != "gradient" and self.clip != "before":
            raise ValueError(f"{self.space} space has one unsplit gradient, so its clip is 'before', not {self.clip!r}")


@dataclass(frozen=True, kw_only=True)
class RoutedState:
    """Where training stands; each step returns a new one."""

    start: Vectors
    deployed: Vectors
    quarantine: Vectors
    point: Vectors  # the optimizer's own point: deployed in gradient space, the unsplit trajectory otherwise
    states: dict[str, State]
    quarantine_states: dict[str, State]
    means: Vectors = field(default_factory=dict)  # module -> (k,), of the predictable gate; empty: nothing seen yet
    norm_pre_clip: float = 0.0
    norm_post_clip: float = 0.0


class Parts(dict[str, tuple[Tensor, Tensor | None]]):
    """Module name -> (gradient of the deployed vector, gradient of the quarantine or None).

    coefficients: module name -> V g (k,) of what was split; nothing where nothing was.
    """

    def __init__(self, parts: Mapping[str, tuple[Tensor, Tensor | None]], coefficients: Vectors | None = None) -> None:
        super().__init__(parts)
        self.coefficients = coefficients or {}

    def norm(self) -> Tensor:
        """The joint norm of all that is there; ()."""
        return global_norm([g for g, _ in self.values()], [h for _, h in self.values() if h is not None])


def initial(routing: Routing, start: Mapping[str, Tensor]) -> RoutedState:
    """The state before the first step; the quarantine starts at zero."""
    at = dict(start)
    fresh = {name: routing.optimizer.start(p) for name, p in at.items()}
    zeros = {name: torch.zeros_like(p) for name, p in at.items()}
    return RoutedState(
        start=at, deployed=at, quarantine=zeros, point=at, states=fresh,
        quarantine_states={name: routing.optimizer.start(p) for name, p in zeros.items()},
    )  # fmt: skip


def refreshed(state: RoutedState) -> RoutedState:
    """The state from which to go on along another basis: of its axes nothing has been seen, so they are closed."""
    return replace(state, means={})


def split_module(rule: SplitRule, x: Tensor, V: Tensor, mean: Tensor | None) -> SplitResult:
    """Splits x (r,) along V (k, r); `mean` (k,) is what the predictable gate has seen, None if nothing yet."""
    if rule.gate != "predictable":
        return split(x, V, rule)
    return split(x, V, rule, open=torch.zeros(len(V), dtype=torch.bool) if mean is None else mean > 0)


def means_after(rule: SplitRule, means: Vectors, coefficients: Vectors) -> Vectors:
    """What the gate has seen after a step that split these coefficients {(k,)}."""
    if rule.gate != "predictable":
        return means
    return means | {name: remembered(means.get(name, torch.zeros_like(c)), c) for name, c in coefficients.items()}


def gradient_parts(
    routing: Routing, g: Mapping[str, Tensor], basis: Mapping[str, Tensor], means: Mapping[str, Tensor] | None = None
) -> Parts:
    """Clips and splits the accumulated gradients g {(r,)} along the basis {(k, r)}, in gradient space.

    means: module -> (k,), what the predictable gate has seen before.
    """
    limit = routing.max_norm
    if routing.clip == "before" or routing.intervention == "none":
        g = scaled(g, clip_factor(global_norm(g.values()), limit))
    if routing.intervention == "none":
        return Parts({name: (gradient, None) for name, gradient in g.items()})

    seen = means or {}
    split_of = {name: split_module(routing.rule, t, basis[name], seen.get(name)) for name, t in g.items()}
    kept = {name: s.kept for name, s in split_of.items()}
    removed = {name: s.removed for name, s in split_of.items()}
    if routing.clip == "before":
        # Reverse, overshoot > 1 and preserve_magnitude can lengthen the parts beyond the limit. The second
        # factor depends on g alone, so erase and route share it.
        again = clip_factor(global_norm(kept.values(), removed.values()), limit)
        kept, removed = scaled(kept, again), scaled(removed, again)
    elif routing.clip == "joint":
        present = [kept.values(), removed.values()] if routing.intervention == "route" else [kept.values()]
        factor = clip_factor(global_norm(*present), limit)
        kept, removed = scaled(kept, factor), scaled(removed, factor)
    else:
        if routing.clip == "separate":
            removed = scaled(removed, clip_factor(global_norm(removed.values()), limit))
        kept = scaled(kept, clip_factor(global_norm(kept.values()), limit))
    return Parts(
        {name: (kept[name], removed[name] if routing.intervention == "route" else None) for name in g},
        {name: s.coefficients for name, s in split_of.items()},
    )


def routed_step(
    routing: Routing, state: RoutedState, g: Mapping[str, Tensor], basis: Mapping[str, Tensor]
) -> RoutedState:
    """One step from `state` on the accumulated gradients g, module name -> (r,)."""
    norm_pre_clip = float(global_norm(g.values()))
    if routing.space == "gradient" or routing.intervention == "none":
        parts = gradient_parts(routing, g, basis, state.means)
        after = _step_in_gradient_space(routing.optimizer, state, parts)
        return replace(
            after, means=means_after(routing.rule, state.means, parts.coefficients), norm_pre_clip=norm_pre_clip,
            norm_post_clip=float(parts.norm()),
        )  # fmt: skip
    unsplit = gradient_parts(replace(routing, intervention="none", retained=1.0), g, basis)
    after = _step_at_the_point(routing, state, unsplit, basis)
    return replace(after, norm_pre_clip=norm_pre_clip, norm_post_clip=float(unsplit.norm()))


def _step_in_gradient_space(optimizer: Optimizer, state: RoutedState, parts: Parts) -> RoutedState:
    deployed, states = dict(state.deployed), dict(state.states)
    quarantine, quarantine_states = dict(state.quarantine), dict(state.quarantine_states)
    for name, (kept, removed) in parts.items():
        deployed[name], states[name] = optimizer.step(deployed[name], kept, states[name])
        if removed is not None:
            quarantine[name], quarantine_states[name] = optimizer.step(
                quarantine[name], removed, quarantine_states[name]
            )
    return replace(
        state, deployed=deployed, quarantine=quarantine, point=deployed, states=states,
        quarantine_states=quarantine_states,
    )  # fmt: skip


def _step_at_the_point(routing: Routing, state: RoutedState, g: Parts, basis: Mapping[str, Tensor]) -> RoutedState:
    deployed, quarantine = dict(state.deployed), dict(state.quarantine)
    point, states, coefficients = dict(state.point), dict(state.states), Vectors()
    for name, (gradient, _) in g.items():
        V, mean = basis[name], state.means.get(name)
        point[name], states[name] = routing.optimizer.step(state.point[name], gradient, states[name])
        if routing.space == "update":
            update = point[name] - state.point[name]
            parts = split_module(routing.rule, -update, V, mean)
            deployed[name] = deployed[name] - parts.kept
            quarantine[name] = quarantine[name] - parts.removed
        else:
            displacement = point[name] - state.start[name]
            parts = split_module(routing.rule, -displacement, V, mean)
            deployed[name] = state.start[name] - parts.kept
            quarantine[name] = -parts.removed
        coefficients[name] = parts.coefficients
        if routing.intervention == "erase":
            quarantine[name] = state.quarantine[name]
            point[name] = torch.lerp(deployed[name], point[name], routing.retained)
    return replace(
        state, deployed=deployed, quarantine=quarantine, point=point, states=states,
        means=means_after(routing.rule, state.means, coefficients),
    )  # fmt: skip
