"""Clipping by global norm around the split, under the four policies that routed training code uses.

    before         scale g, then split: covers both sets, and route feeds what erase feeds
    joint          split, then scale both sets by their joint norm: covers both sets, but erase
                   has only one of them and so clips by another norm
    separate       split, then scale each set by its own norm
    deployed_only  split, then scale the deployed set by its own norm; the quarantine is unbounded

Parameters that are not routed count with the deployed set, and are scaled with it. Norm clipping is from Pascanu et al.
2013 (arXiv:1211.5063), algorithm 1.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from projected_grpo.norms import global_norm
from projected_grpo.split import GroupedSplit
from projected_grpo.stacks import Stacks

ClipPolicy = Literal["before", "joint", "separate", "deployed_only"]


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
    """What one step hands to the optimizer; tensors of its own, into which it may write."""

    deployed: Stacks  # (m, r) each, as the gradients came in
    quarantine: Stacks  # likewise; empty where the removed part is dropped
    others: list[Tensor]  # parameters that are not routed, any shape
    memory: dict[str, Tensor] = field(
        default_factory=dict
    )  # module → (k,): what the predictable gate remembers after this split; else empty

    def norm(self) -> Float[Tensor, ""]:
        """The norm over everything that is fed."""
        return global_norm(self.deployed, self.quarantine, self.others)


def clip_unsplit(g: Sequence[Tensor], others: Sequence[Tensor], factor: Tensor | None) -> Fed:
    """Scales stacks g and the others by the `clip_factor` of their common norm; None copies g."""
    if factor is None:
        return Fed([stack.clone() for stack in g], [], list(others))
    return Fed(_scaled(g, factor), [], _scaled(others, factor))


def split_and_clip(
    g: Sequence[Tensor],
    others: Sequence[Tensor],
    norm: Tensor,
    split: GroupedSplit,
    *,
    clip: ClipPolicy,
    max_norm: float | None,
    route: bool,
    memory: Mapping[str, Tensor] | None = None,
    seen: Collection[str] | None = None,
) -> Fed:
    """Splits the accumulated gradients and clips them, in the order that the policy asks for.

    Arguments:
        g: the accumulated gradients, stacks (m, r): first those of `split.layout`, then modules without rows.
        others: gradients of parameters that are not routed.
        norm: global_norm(g, others), which the caller has anyway.
        split: the basis and the rule.
        route: whether the removed part is fed to the quarantine, or dropped (erase).
        memory, seen: what the predictable gate remembers of earlier steps, and of which modules it learns in this one,
            see `GroupedSplit.of_stacks`.

    The tensors that come in are never written to; `others` may be handed on as they are, and so may stacks without
    rows.
    """
    stacks, rest = list(g), list(others)
    if clip == "before" and max_norm is not None:
        factor = clip_factor(norm, max_norm)
        stacks, rest = _scaled(stacks, factor), _scaled(rest, factor)
    covered = len(split.V)
    parts, remembered = split.of_stacks(stacks[:covered], memory, seen)
    kept = [*(part.kept for part in parts), *stacks[covered:]]
    removed = [*(part.removed for part in parts), *(torch.zeros_like(stack) for stack in stacks[covered:])]
    if max_norm is None:
        pass
    elif clip == "before":
        # Reverse, overshoot > 1 and preserve_magnitude can lengthen the parts beyond the limit. The second factor
        # depends on g alone, so erase and route share it. Every other rule cannot, and rounding may not pretend to.
        if split.rule.strength > 1 or split.rule.preserve_magnitude:
            again = clip_factor(global_norm(kept, removed, rest), max_norm)
            kept, removed, rest = _scaled(kept, again), _scaled(removed, again), _scaled(rest, again)
    elif clip == "joint":
        present = [kept, removed] if route else [kept]
        factor = clip_factor(global_norm(*present, rest), max_norm)
        kept, removed, rest = _scaled(kept, factor), _scaled(removed, factor), _scaled(rest, factor)
    else:
        if clip == "separate":
            removed = _scaled(removed, clip_factor(global_norm(removed), max_norm))
        factor = clip_factor(global_norm(kept, rest), max_norm)
        kept, rest = _scaled(kept, factor), _scaled(rest, factor)
    return Fed(kept, removed if route else [], rest, remembered)


def _scaled(gradients: Sequence[Tensor], factor: Tensor) -> list[Tensor]:
    """Copies, scaled; the factor is a 0-dimensional tensor, so every gradient keeps its dtype."""
    alike: defaultdict[torch.device, list[int]] = defaultdict(list)
    for i, g in enumerate(gradients):
        alike[g.device].append(i)
    scaled = list(gradients)
    for device, places in alike.items():
        products = torch._foreach_mul([gradients[i] for i in places], factor.to(device))
        for i, product in zip(places, products, strict=True):
            scaled[i] = product
    return scaled
