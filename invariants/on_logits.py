"""Comparing gradients on logits: the worst of them, with its place in words."""

import math

import torch
from torch import Tensor

from invariants.measurement import NOTHING, Events, Measurement, elementwise
from invariants.trials import GRPOTrial


def on_logits(
    trial: GRPOTrial, residual: Tensor, bound: Tensor, *, factor: float = 1.0, occurred: Events = NOTHING
) -> Measurement:
    """The entry whose residual (B, P + T, vocab) is largest against its bound, beside `factor` gradients."""
    size = residual.abs()
    excess = torch.where(size == 0, 0.0, torch.where(size.isfinite(), size / bound, math.inf))
    b, i, _ = torch.unravel_index((excess if excess.any() else bound).argmax(), bound.shape)
    where = f"{trial.case.label}, completion {int(b)}, position {int(i)}"
    scale = factor * trial.exact.gradient
    return elementwise(residual[b, i], bound[b, i], where, scale=scale, occurred=occurred)
