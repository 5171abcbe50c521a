"""The split: one gradient into the part that trains and the part that is removed.

    gate one_sided: c_use = relu(c)      no_gate: c_use = c      reverse: c_use = 2 c
    predictable: c_use = c on the axes that are open, 0 on the others
    c = V g        removed = overshoot * V^T c_use        kept = g - removed

V (k, r) is the hack basis, rows orthonormal or zero, oriented so that c_i > 0 means
"a descent step along g moves hack-ward". Gradient projection of this kind goes back to
gradient surgery (Yu et al. 2020, arXiv:2001.06782, section 2.3), routing into a second
parameter set to gradient routing (Cloud et al. 2024, arXiv:2410.04332).

The first three gates look at c alone. The predictable one looks at the past alone: an axis is open where the
running mean m of its coefficients so far is above 0,

    m = 0 at the start, so closed        after each step  m <- 0.9 m + 0.1 c

so that what is removed is linear in c given the past, and noise of mean zero stays of mean zero (a martingale).
The price is lag: an axis on which hacking begins opens late, one on which it ends closes late.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

MemorylessGate = Literal["one_sided", "no_gate", "reverse"]
Gate = Literal[MemorylessGate, "predictable"]
DECAY = 0.9


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


def remembered(mean: Tensor, c: Tensor) -> Tensor:
    """The running mean (k,) after a step whose coefficients were c (k,)."""
    return DECAY * mean + (1 - DECAY) * c


def gated(c: Tensor, gate: Gate, open: Tensor | None = None) -> Tensor:
    """The coefficients that are used, (k,) -> (k,); `open` (k,) bool, for the predictable gate and no other."""
    if (open is not None) != (gate == "predictable"):
        raise ValueError(f"gate {gate!r} {'needs to be told' if open is None else 'does not ask'} which axes are open")
    if open is not None:
        return torch.where(open, c, 0.0)
    if gate == "one_sided":
        return torch.relu(c)
    if gate == "no_gate":
        return c
    if gate == "reverse":
        return 2 * c
    raise ValueError(f"gate {gate!r} is not one of one_sided, no_gate, reverse, predictable")


def split(g: Tensor, V: Tensor, rule: SplitRule = DEFAULT, open: Tensor | None = None) -> SplitResult:
    """Splits g (r,) along V (k, r); under the predictable gate on the axes that are `open` (k,).

    `kept` is computed by subtracting the stored, rounded `removed`, so that in floating point
    |fl(kept + removed) - g| <= 2 u max(|g|, |removed|, |kept|) elementwise (conservation).
    """
    c = V @ g  # (k, r) @ (r,) -> (k,)
    removed = rule.overshoot * (V.T @ gated(c, rule.gate, open))  # (r, k) @ (k,) -> (r,)
    kept = g - removed
    if rule.preserve_magnitude:
        kept = rescaled(kept, g.norm())
    return SplitResult(kept, removed, c)


def rescaled(kept: Tensor, norm: Tensor) -> Tensor:
    """`kept` at the given norm; zero stays zero, where the direction is undefined."""
    own = kept.norm()
    return kept if own == 0 else kept * (norm / own)
