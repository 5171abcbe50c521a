"""The two trainable vectors of one adapted module, as everything in this package sees them."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import nn


class VectorPair(NamedTuple):
    """`deployed` (r,) stays in the model that is shipped; `quarantine` (r,) is deleted from it, or was never there."""

    deployed: nn.Parameter
    quarantine: nn.Parameter | None


# What callers hand in: module name -> (deployed, quarantine), a plain tuple or a VectorPair; or an adapted model.
VectorSource = Mapping[str, tuple[nn.Parameter, nn.Parameter | None]] | nn.Module
