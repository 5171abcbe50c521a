"""What one split did, in numbers: for whoever splits gradients without a `RoutedOptimizer`, whose diagnostics say more.

Shares are those of `diagnostics`. What is left along the basis follows from the coefficients alone, without another
pass over V: with G = V Vᵀ of each module, k by k, and u the part of c = V g that was removed, V kept = c - G u. That is
algebra, exact up to sqrt(r) u ‖g‖ for the unit roundoff u, and says nothing of a split that is wrong.
"""

from dataclasses import dataclass

import torch

from projected_grpo.errors import UnsupportedCombinationError
from projected_grpo.norms import global_norm, lengths, plain_lengths, plain_norm, trusted
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
def split_statistics(split: GroupedSplit, result: GroupedResult) -> SplitStatistics:
    """The statistics of what `split` returned, with one synchronisation; a second one follows where a norm is zero, or
    so large or small that its squares may overflow or vanish.

    Raises:
        UnsupportedCombinationError: the rule preserves the magnitude or remembers, so that c alone does not say what
            was kept.
    """
    rule = split.rule
    if rule.preserve_magnitude or rule.remembers:
        raise UnsupportedCombinationError(f"What {rule} keeps does not follow from coefficients; measure it instead.")
    if not result.stacks:
        return SplitStatistics(norm=0.0, norm_kept=0.0, norm_removed=0.0, cos_pre=0.0, cos_post=0.0, fired=0)
    grams = split.restricted(result.kept).grams()
    c = [stack.coefficients for stack in result.stacks]
    used = [gated(x, rule.gate, None) * rule.overshoot for x in c]
    after = [x - torch.bmm(u.unsqueeze(1), G).squeeze(1) for x, u, G in zip(c, used, grams, strict=True)]
    both = end_to_end([torch.stack(each).flatten(1) for each in zip(c, after, strict=True)])  # (2, n)
    vectors = [
        [stack.vectors for stack in result.stacks],
        [p.kept for p in result.parts],
        [p.removed for p in result.parts],
    ]
    for norm, along in ((plain_norm, plain_lengths), (global_norm, lengths)):
        numbers = [(both[0] > 0).sum(), *(norm(stacks) for stacks in vectors)]
        alone = torch.stack([number.to(both.device, torch.float64) for number in numbers])
        fired, whole, kept, removed, before, behind = torch.cat([alone, along(torch.relu(both))]).tolist()
        if all(trusted(each) for each in (whole, kept, removed)):
            break
    return SplitStatistics(
        norm=whole,
        norm_kept=kept,
        norm_removed=removed,
        cos_pre=before / whole if whole else 0.0,
        cos_post=behind / kept if kept else 0.0,
        fired=int(fired),
    )
