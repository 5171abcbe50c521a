"""Clipping by global norm around the split, under the four policies that routed training code uses.

    before         scale g, then split: covers both sets, and route feeds what erase feeds
    joint          split, then scale both sets by their joint norm: covers both sets, but erase
                   has only one of them and so clips by another norm
    separate       split, then scale each set by its own norm
    deployed_only  split, then scale the deployed set by its own norm; the quarantine is unbounded

Parameters that are not routed count with the deployed set, and are scaled with it. Norm clipping is from Pascanu et al.
2013 (arXiv:1211.5063), algorithm 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from projected_grpo.norms import global_norm
from projected_grpo.split import GroupedSplit, Stack

ClipPolicy = Literal["before", "joint", "separate", "deployed_only"]
Gradients = dict[str, Tensor]


def clip_factor(norm: Float[Tensor, ""], max_norm: float | None) -> Float[Tensor, ""]:
    """min(1, max_norm / norm): exactly 1 up to the limit, and without torch's 1e-6 in the denominator.

    NaN where the norm is NaN or has overflowed: a factor of 0 would drop the gradients without a word.

    Stays on the device of `norm`, without a synchronisation.
    """
    if max_norm is None:
        return torch.ones_like(norm)
    factor = torch.clamp(max_norm / norm, max=1.0)
    return torch.where(torch.isfinite(norm), factor, torch.full_like(factor, torch.nan))


@dataclass(frozen=True)
class Fed:
    """What one step hands to the optimizer."""

    deployed: Gradients  # module → (r,)
    quarantine: Gradients  # module → (r,); empty where the removed part is dropped
    others: list[Tensor]  # parameters that are not routed, any shape
    accumulated: list[Stack]  # what was split, before it was; empty if nothing was
    memory: Gradients = field(
        default_factory=dict
    )  # module → (k,): what the predictable gate remembers after this split; else empty

    def norm(self) -> Float[Tensor, ""]:
        """The norm over everything that is fed."""
        return global_norm(self.deployed.values(), self.quarantine.values(), self.others)


def clip_unsplit(g: Mapping[str, Tensor], others: Sequence[Tensor], norm: Tensor, max_norm: float | None) -> Fed:
    """Scales g and the others to the limit by their common norm; the very tensors where there is no limit."""
    if max_norm is None:
        return Fed(dict(g), {}, list(others), [])
    factor = clip_factor(norm, max_norm)
    return Fed(_scaled(g, factor), {}, _scaled_list(others, factor), [])


def split_and_clip(
    g: Mapping[str, Tensor],
    others: Sequence[Tensor],
    norm: Tensor,
    split: GroupedSplit,
    *,
    clip: ClipPolicy,
    max_norm: float | None,
    route: bool,
    memory: Mapping[str, Tensor] | None = None,
) -> Fed:
    """Splits the accumulated gradients and clips them, in the order that the policy asks for.

    Arguments:
        g: module → accumulated gradient (r,).
        others: gradients of parameters that are not routed.
        norm: global_norm(g.values(), others), which the caller has anyway.
        split: the basis and the rule.
        route: whether the removed part is fed to the quarantine, or dropped (erase).
        memory: what the predictable gate remembers of earlier steps, see `GroupedSplit`.

    The tensors that come in are never written to; some may be handed on as they are.
    """
    rest = list(others)
    if clip == "before" and max_norm is not None:
        factor = clip_factor(norm, max_norm)
        g, rest = _scaled(g, factor), _scaled_list(rest, factor)
    parts = split(g, memory)
    kept, removed = parts.kept, parts.removed
    if max_norm is None:
        pass
    elif clip == "before":
        # Reverse, overshoot > 1 and preserve_magnitude can lengthen the parts beyond the limit. The second factor
        # depends on g alone, so erase and route share it. Every other rule cannot, and rounding may not pretend to.
        if split.rule.strength > 1 or split.rule.preserve_magnitude:
            again = clip_factor(global_norm(kept.values(), removed.values(), rest), max_norm)
            kept, removed, rest = _scaled(kept, again), _scaled(removed, again), _scaled_list(rest, again)
    elif clip == "joint":
        present = [kept.values(), removed.values()] if route else [kept.values()]
        factor = clip_factor(global_norm(*present, rest), max_norm)
        kept, removed, rest = _scaled(kept, factor), _scaled(removed, factor), _scaled_list(rest, factor)
    else:
        if clip == "separate":
            removed = _scaled(removed, clip_factor(global_norm(removed.values()), max_norm))
        factor = clip_factor(global_norm(kept.values(), rest), max_norm)
        kept, rest = _scaled(kept, factor), _scaled_list(rest, factor)
    return Fed(kept, removed if route else {}, rest, parts.stacks, parts.memory)


def _scaled(gradients: Mapping[str, Tensor], factor: Tensor) -> Gradients:
    return dict(zip(gradients, _scaled_list(list(gradients.values()), factor), strict=True))


def _scaled_list(gradients: Sequence[Tensor], factor: Tensor) -> list[Tensor]:
    """Copies, scaled; the factor is a 0-dimensional tensor, so every gradient keeps its dtype."""
    return [g * factor.to(g.device) for g in gradients]
