"""Gauges of drift: two numbers without labels that warn before one-sided routing ruins the deployed model.

    d = deployed - start, (r,)        q = quarantine, (r,)        V (k, r), the hack basis

    drift_ratio       mean |V d|  /  mean |d - V^T V d|         the means over all axes, and over all coordinates
    drift_opposition  -<V d, V q> / |V q|^2

both over all modules that have rows in the basis; a row of zeros is no axis.

relu of noise has a positive mean, so one-sided routing of gradients or updates pushes d and q apart along V at every
step, by lr sigma / sqrt(2 pi) an axis under SGD, whether or not there is anything to learn (rectification bias). Then d
is long along V beside what it has learned elsewhere, and V d is about -V q. Training looks healthy meanwhile: the two
cancel in the model that is trained.

On a tiny testbed (r = 64, k = 8, AdamW), 86 runs: a ratio above .5 flagged 27 of the 33 that later died, about 50 steps
ahead, and 2 of the 53 others; an opposition above .35 flagged 29 of the 33, and 6 of the others. The two limits are
measured there and nowhere else. A displacement without any direction has a ratio of about 1 before a split and 1/2
after a one-sided one, so the ratio means something once something has been learned off V.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

RATIO_LIMIT = 0.5
OPPOSITION_LIMIT = 0.35


class Drift(NamedTuple):
    """Both gauges; each is 0 where its numerator is, and infinite where only its denominator is."""

    ratio: float
    opposition: float

    @property
    def warns(self) -> bool:
        """Whether either is above its limit."""
        return self.ratio > RATIO_LIMIT or self.opposition > OPPOSITION_LIMIT


def drift(displacement: Mapping[str, Tensor], quarantine: Mapping[str, Tensor], basis: Mapping[str, Tensor]) -> Drift:
    """The gauges of d {(r,)} and q {(r,)} along the basis {(k, r)}."""
    along, off, routed = [torch.zeros(0)], [torch.zeros(0)], [torch.zeros(0)]
    for name, V in basis.items():
        if len(V) == 0:
            continue
        axes = V[V.any(dim=1)]  # (k', r)
        c = axes @ displacement[name]  # (k',)
        along.append(c)
        off.append(displacement[name] - axes.T @ c)  # (r,)
        routed.append(axes @ quarantine[name])  # (k',)
    c, rest, h = torch.cat(along), torch.cat(off), torch.cat(routed)
    return Drift(
        ratio=quotient(c.abs().sum() * len(rest), rest.abs().sum() * len(c)),
        opposition=quotient(-(c * h).sum(), (h * h).sum()),
    )


def quotient(numerator: Tensor, denominator: Tensor) -> float:
    """numerator / denominator, both (); 0 where the numerator is 0."""
    return float(numerator / denominator) if numerator != 0 else 0.0
