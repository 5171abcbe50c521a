"""The split: one gradient into the part that trains and the part that is removed.

    gate one_sided: c_use = relu(c)      no_gate: c_use = c      reverse: c_use = 2 c
    c = V g        removed = overshoot * V^T c_use        kept = g - removed

V (k, r) is the hack basis, rows orthonormal or zero, oriented so that c_i > 0 means
"a descent step along g moves hack-ward". Gradient projection of this kind goes back to
gradient surgery (Yu et al. 2020, arXiv:2001.06782, section 2.3), routing into a second
parameter set to gradient routing (Cloud et al. 2024, arXiv:2410.04332).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Gate = Literal["one_sided", "no_gate", "reverse"]


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """Which share of the component along V is removed, and whether the rest is rescaled."""

    gate: Gate = "one_sided"
    overshoot: float = 1.0
    preserve_magnitude: bool = False


class SplitResult(NamedTuple):
    """kept + removed == g, unless the rule preserves the magnitude."""

    kept: Tensor  # (r,)
    removed: Tensor  # (r,)
    coefficients: Tensor  # (k,) c = V g, before the gate


DEFAULT = SplitRule()


def gated(c: Tensor, gate: Gate) -> Tensor:
    """The coefficients that are used, (k,) -> (k,)."""
    if gate == "one_sided":
        return torch.relu(c)
    if gate == "no_gate":
        return c
    if gate == "reverse":
        return 2 * c
    raise ValueError(f"gate {gate!r} is not one of one_sided, no_gate, reverse")


def split(g: Tensor, V: Tensor, rule: SplitRule = DEFAULT) -> SplitResult:
    """Splits g (r,) along V (k, r).

    `kept` is computed by subtracting the stored, rounded `removed`, so that in floating point
    |fl(kept + removed) - g| <= 2 u max(|g|, |removed|, |kept|) elementwise (conservation).
    """
    c = V @ g  # (k, r) @ (r,) -> (k,)
    removed = rule.overshoot * (V.T @ gated(c, rule.gate))  # (r, k) @ (k,) -> (r,)
    kept = g - removed
    if rule.preserve_magnitude:
        kept = rescaled(kept, g.norm())
    return SplitResult(kept, removed, c)


def rescaled(kept: Tensor, norm: Tensor) -> Tensor:
    """`kept` at the given norm; zero stays zero, where the direction is undefined."""
    own = kept.norm()
    return kept if own == 0 else kept * (norm / own)
