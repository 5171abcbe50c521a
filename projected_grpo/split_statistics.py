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
from dataclasses import dataclass

import torch

from projected_grpo.errors import UnsupportedCombinationError
from projected_grpo.norms import global_norm, in_own_dtypes, lengths, plain_lengths, plain_norm, trusted
from projected_grpo.split import GroupedResult, GroupedSplit, gated
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
    g = [stack.vectors for stack in result.stacks]
    of_modules = []
    for stack, G in zip(result.stacks, split.restricted(result.kept).grams(), strict=True):
        used = gated(stack.coefficients, rule.gate, None) * rule.overshoot
        gone = torch.bmm(used.unsqueeze(1), G).squeeze(1)
        of_modules.append(torch.stack([stack.coefficients, used, gone]).flatten(1))
    c, used, gone = end_to_end(of_modules)
    along = torch.relu(torch.stack([c, c - gone]))
    numbers = [(c > 0).sum(), plain_norm(g), (used @ gone).sqrt(), used @ (2 * c - gone), *plain_lengths(along)]
    fired, whole, removed, lost, before, behind = torch.stack([x.to(c) for x in numbers]).tolist()
    kept_squared = whole * whole - lost
    rounded_once = all(stack.vectors.dtype == stack.coefficients.dtype for stack in result.stacks)
    if rounded_once and kept_squared > whole * whole / 4 and trusted(whole) and trusted(removed):
        kept = math.sqrt(kept_squared)
    else:
        parts = [part.kept for part in result.parts], [part.removed for part in result.parts]
        norms = torch.stack([global_norm(stacks) for stacks in (g, *parts)])
        whole, kept, removed, before, behind = torch.cat([norms, lengths(along)]).tolist()
    return SplitStatistics(
        norm=whole,
        norm_kept=kept,
        norm_removed=removed,
        cos_pre=before / whole if whole else 0.0,
        cos_post=behind / kept if kept else 0.0,
        fired=int(fired),
    )
