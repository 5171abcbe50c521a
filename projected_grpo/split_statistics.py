"""What one split did, in numbers: for whoever splits gradients without a `RoutedOptimizer`, whose diagnostics say more.

Shares are those of `diagnostics`. All but ‖g‖ follows from the coefficients alone, without another pass over V or over
the parts: with G = V Vᵀ of each module, k by k, and u the part of c = V g that was removed,

    V removed = G u,    ‖removed‖² = <u, G u>,    V kept = c - G u,    ‖kept‖² = ‖g‖² - <u, 2c - G u>

That is algebra: it says what the split should have done, and nothing of one that is wrong. With ε the unit roundoff, s
the rule's strength, and k and r of the largest module, ‖removed‖ is within k/2 (r + 3k + 3) ε of the norm of what was
removed, relative to it, and ‖kept‖ within 2 (1 + s sqrt(k))² (r + 3k + 3) ε where it is above ‖g‖ / 2 (every sum's own
error, to first order; in float64 that over n axes of all modules is one of them, which adds n to r + 3k + 3). Where it
isn't, and for half types, whose parts are rounded once more, the norms of the parts are measured.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from projected_grpo import kernels
from projected_grpo.errors import UnsupportedCombinationError
from projected_grpo.norms import (
    global_norm,
    in_own_dtypes,
    length_of_parts,
    lengths,
    plain_lengths,
    plain_norm,
    trusted,
)
from projected_grpo.split import GroupedResult, GroupedSplit, SplitRule, Stack, gated
from projected_grpo.stacks import end_to_end


@dataclass(frozen=True, kw_only=True)
class SplitStatistics:
    """Over all modules that have rows in the basis.

    norm, norm_kept, norm_removed: 2-norms of g and of its two parts.
    cos_pre, cos_post: the hack-ward share of g, sqrt(Σ ‖relu(V g)‖² / Σ ‖g‖²), and of what was kept; 0 for a zero.
    fired: the number of axes with c > 0.
    """

    norm: float
    norm_kept: float
    norm_removed: float
    cos_pre: float
    cos_post: float
    fired: int


@torch.no_grad()
@in_own_dtypes()
def split_statistics(split: GroupedSplit, result: GroupedResult) -> SplitStatistics:
    """The statistics of what `split` returned, with one synchronisation if every module of the basis has a gradient.

    Where little is kept, a norm is zero or its squares may overflow or vanish, or the vectors are of a half type, the
    parts are measured, with another one; what is left along the basis is algebra then too.

    Raises:
        UnsupportedCombinationError: the rule preserves the magnitude or remembers, so that c alone does not say what
            was kept.
    """
    rule = split.rule
    if rule.preserve_magnitude or rule.remembers:
        raise UnsupportedCombinationError(f"What {rule} keeps does not follow from coefficients; measure it instead.")
    if not result.stacks:
        return SplitStatistics(norm=0.0, norm_kept=0.0, norm_removed=0.0, cos_pre=0.0, cos_post=0.0, fired=0)
    this = split.restricted(result.kept)
    parts, others = list[Tensor](), list[tuple[Stack, Tensor]]()
    for stack, V, G in zip(result.stacks, this.V, this.grams(), strict=True):
        # Those of another split of the same modules would not fit, of which torch says so.
        if stack.coefficients.shape == V.shape[:2] and kernels.serve(V, [stack.vectors]):
            one_sided = rule.gate == "one_sided"
            parts.append(kernels.of_split(*stack, G, one_sided=one_sided, strength=rule.strength))
        else:
            others.append((stack, G))
    if others:
        parts.append(_of_stacks(others, rule))
    fired, removed_squared, lost, *norms = zip(*(part.tolist() for part in parts), strict=True)
    whole, before, behind = map(length_of_parts, norms)
    removed, kept_squared = math.sqrt(max(sum(removed_squared), 0.0)), whole * whole - sum(lost)
    rounded_once = all(stack.vectors.dtype == stack.coefficients.dtype for stack in result.stacks)
    if rounded_once and kept_squared > whole * whole / 4 and trusted(whole) and trusted(removed):
        kept = math.sqrt(kept_squared)
    else:
        g = [stack.vectors for stack in result.stacks]
        both = [part.kept for part in result.parts], [part.removed for part in result.parts]
        measured = torch.stack([global_norm(stacks) for stacks in (g, *both)])
        along = _along([*zip(result.stacks, this.grams(), strict=True)], rule)[-1]
        whole, kept, removed, before, behind = torch.cat([measured, lengths(along)]).tolist()
    return SplitStatistics(
        norm=whole,
        norm_kept=kept,
        norm_removed=removed,
        cos_pre=before / whole if whole else 0.0,
        cos_post=behind / kept if kept else 0.0,
        fired=int(sum(fired)),
    )


def _of_stacks(stacks: Sequence[tuple[Stack, Tensor]], rule: SplitRule) -> Float[Tensor, "6"]:
    """What `kernels.of_split` says of one stack, of all of these together."""
    c, used, gone, along = _along(stacks, rule)
    whole = plain_norm([stack.vectors for stack, _ in stacks])
    numbers = [(c > 0).sum(), used @ gone, used @ (2 * c - gone), whole, *plain_lengths(along)]
    return torch.stack([x.to(c) for x in numbers])


def _along(stacks: Sequence[tuple[Stack, Tensor]], rule: SplitRule) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """c, u and G u of all axes (n,), and relu(V g) and relu(V kept), (2, n)."""
    of_modules = []
    for stack, G in stacks:
        used = gated(stack.coefficients, rule.gate, None) * rule.overshoot
        gone = torch.bmm(used.unsqueeze(1), G).squeeze(1)
        of_modules.append(torch.stack([stack.coefficients, used, gone]).flatten(1))
    c, used, gone = end_to_end(of_modules)
    return c, used, gone, torch.relu(torch.stack([c, c - gone]))
