"""A split function on one gradient and one basis."""

import math
from dataclasses import KW_ONLY, dataclass
from functools import cached_property

import torch
from torch import Tensor

from invariants.bounds import gamma, removed_error, unit_roundoff
from invariants.cases.split import SplitCase
from invariants.contracts.split import SplitFunction, SplitSetting
from invariants.errors import SubjectContractError
from invariants.hypotheses import strength
from reference.split import gated


@dataclass(frozen=True)
class SplitTrial:
    """A split function on one gradient and basis."""

    function: SplitFunction
    _: KW_ONLY
    setting: SplitSetting
    case: SplitCase
    dtype: torch.dtype

    @cached_property
    def g(self) -> Tensor:
        """The gradient as the subject gets it, (r,) float64."""
        return self.case.g.to(self.dtype).double()

    @cached_property
    def V(self) -> Tensor:  # noqa: N802  (the field's name)
        """The basis as the subject gets it, (k, r) float64."""
        return self.case.V.to(self.dtype).double()

    @property
    def judgeable(self) -> bool:
        """Whether the case survives the cast to the subject's dtype, and is not too long for a bound in it."""
        bounded = math.isfinite(gamma(sum(self.V.shape) + 4, self.dtype))
        return bounded and bool(self.g.isfinite().all())

    def split(self, g: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
        """(kept, removed) of the subject, float64; its inputs are copies in its dtype."""
        kept, removed = self.raw(g.to(self.dtype).clone(), V.to(self.dtype).clone())
        return kept.double().clone(), removed.double().clone()

    def raw(self, g: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
        """(kept, removed) in the subject's own dtype, after a check of its contract."""
        returned = self.function(g, V)
        try:
            kept, removed = returned
        except (TypeError, ValueError):
            raise SubjectContractError(
                f"split must return (kept, removed), two tensors, not {type(returned).__name__}."
            ) from None
        for name, part in (("kept", kept), ("removed", removed)):
            if not isinstance(part, Tensor) or part.shape != g.shape or part.dtype != g.dtype:
                what = f"{tuple(part.shape)} {part.dtype}" if isinstance(part, Tensor) else type(part).__name__
                raise SubjectContractError(
                    f"split returned {name} as {what} for a gradient {tuple(g.shape)} {g.dtype}; they must agree."
                )
        return kept.detach(), removed.detach()

    @cached_property
    def parts(self) -> tuple[Tensor, Tensor]:
        """(kept, removed) on the case itself, float64."""
        return self.split(self.g, self.V)

    @property
    def kept(self) -> Tensor:
        """The part that trains, (r,) float64."""
        return self.parts[0]

    @property
    def removed(self) -> Tensor:
        """The part that is removed, (r,) float64."""
        return self.parts[1]

    @cached_property
    def c(self) -> Tensor:
        """V g in float64, (k,)."""
        return self.V @ self.g

    @cached_property
    def c_use(self) -> Tensor:
        """overshoot * gate(c) in float64, (k,)."""
        return self.setting.overshoot * gated(self.c, self.setting.gate)

    @property
    def scale(self) -> float:
        """The largest |c_use| / |c| of the setting."""
        return strength(self.setting.rule)

    @cached_property
    def removed_bound(self) -> Tensor:
        """Forward error of `removed`, elementwise (r,)."""
        return removed_error(self.g, self.V, self.scale, self.dtype)

    @cached_property
    def kept_bound(self) -> Tensor:
        """Forward error of `kept` = fl(g - removed), elementwise (r,)."""
        exact = self.V.T @ self.c_use
        return self.removed_bound + unit_roundoff(self.dtype) * (self.g.abs() + exact.abs() + self.removed_bound)
