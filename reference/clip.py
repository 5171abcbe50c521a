"""Clipping by global norm, under the four policies that routed training code uses.

    before         scale g, then split: covers both sets, and route feeds what erase feeds
    joint          split, then scale both sets by their joint norm: covers both sets, but erase
                   has only one of them and so clips by another norm
    separate       split, then scale each set by its own norm
    deployed_only  split, then scale the deployed set by its own norm; the quarantine is unbounded

Norm clipping is from Pascanu et al. 2013 (arXiv:1211.5063), algorithm 1.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor

ClipPolicy = Literal["before", "joint", "separate", "deployed_only"]
Gradients = Mapping[str, Tensor]


def global_norm(*sets: Iterable[Tensor]) -> Tensor:
    """The 2-norm of everything in `sets`, read as one long vector; ()."""
    squares = [(g * g).sum() for gradients in sets for g in gradients]
    return torch.stack(squares).sum().sqrt() if squares else torch.zeros(())


def clip_factor(norm: Tensor, max_norm: float | None) -> Tensor:
    """min(1, max_norm / norm), without torch's 1e-6 in the denominator; ()."""
    if max_norm is None or norm <= max_norm:
        return torch.ones_like(norm)
    return max_norm / norm


def scaled(gradients: Gradients, factor: Tensor) -> dict[str, Tensor]:
    """Every gradient times one common factor ()."""
    return {name: g * factor for name, g in gradients.items()}
