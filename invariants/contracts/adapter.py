"""What an adapted Linear shows."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import Tensor, nn

from invariants.contracts.claims import Claims


@dataclass(frozen=True, kw_only=True)
class AdaptedLinear:
    """One adapted Linear, made fresh for every check; what is None is reported as not applicable.

    `merge` puts the adapter into the weight that `weight` shows, `unmerge` takes it out again. `export` gives the
    tensors of the model as deployed, by name, with the merged weight under the name "weight". `checkpoint` gives the
    tensors that the adapter's own checkpoint would hold, by name, as they are handed to what writes it.
    """

    forward: Callable[[Tensor], Tensor]
    deployed: nn.Parameter
    quarantine: nn.Parameter
    ablated: Callable[[], AbstractContextManager[object]] | None = None
    as_base: Callable[[], AbstractContextManager[object]] | None = None
    weight: Callable[[], Tensor] | None = None
    merge: Callable[[], object] | None = None
    unmerge: Callable[[], object] | None = None
    export: Callable[[], Mapping[str, Tensor]] | None = None
    checkpoint: Callable[[], Mapping[str, Tensor]] | None = None


AdapterFactory = Callable[[Tensor, Tensor | None], AdaptedLinear]
"""(weight (d_out, d_in), bias (d_out,) or None) -> the adapted Linear, both vectors at zero."""


@dataclass(frozen=True)
class AdapterSetting:
    """An adapter has one setting; it exists so that all capabilities are handled alike."""

    claims: Claims = None
    label: str = "adapter"
