"""A split function on one gradient and one basis."""

import math
from dataclasses import KW_ONLY, dataclass
from functools import cached_property

import torch
from torch import Tensor

from invariants.bounds import (
    gamma,
    length,
    orthonormality_defect,
    relative_error,
    underflow,
    underflow_in_removed,
    unit_roundoff,
)
from invariants.cases.split import SplitCase
from invariants.contracts.split import SplitFunction, SplitSetting
from invariants.errors import SubjectContractError
from invariants.hypotheses import strength
from reference.split import gated


class Given:
    """A case as a subject of one dtype gets it, and what follows from it alone; float64."""

    def __init__(self, case: SplitCase, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.g = case.g.to(dtype).double()  # (r,)
        self.V = case.V.to(dtype).double()  # (k, r)
        self.V_abs = self.V.abs()
        self.c = self.V @ self.g  # (k,)

    @staticmethod
    def of(case: SplitCase, dtype: torch.dtype) -> "Given":
        """Made once per case and dtype, since many settings look at the same case."""
        if dtype not in case.remembered:
            case.remembered[dtype] = Given(case, dtype)
        given = case.remembered[dtype]
        assert isinstance(given, Given), "nobody else remembers anything"
        return given

    @cached_property
    def defect(self) -> float:
        """How far the rows are from being orthonormal or zero."""
        return orthonormality_defect(self.V)

    @cached_property
    def underflow_in_removed(self) -> Tensor:
        """What a split can lose below the normal range, (r,)."""
        return underflow_in_removed(self.V, self.dtype)

    @cached_property
    def relative_error(self) -> Tensor:
        """Rounding of V^T gate(V g) at strength 1, (r,)."""
        return relative_error(self.V_abs.T @ (self.V_abs @ self.g.abs()), sum(self.V.shape) + 4, self.dtype)

    @cached_property
    def norm(self) -> float:
        """|g|, also where its square overflows."""
        return length(self.g)


@dataclass(frozen=True)
class SplitTrial:
    """A split function on one gradient and basis."""

    function: SplitFunction
    _: KW_ONLY
    setting: SplitSetting
    case: SplitCase
    dtype: torch.dtype

    @cached_property
    def given(self) -> Given:
        """The case in the subject's dtype."""
        return Given.of(self.case, self.dtype)

    @property
    def g(self) -> Tensor:
        """The gradient as the subject gets it, (r,) float64."""
        return self.given.g

    @property
    def V(self) -> Tensor:  # noqa: N802  (the field's name)
        """The basis as the subject gets it, (k, r) float64."""
        return self.given.V

    @property
    def judgeable(self) -> bool:
        """Whether the case survives the cast to the subject's dtype with room to compute in, and is not too long for
        a bound in it."""
        return math.isfinite(gamma(sum(self.V.shape) + 4, self.dtype)) and self.fits(self.given.norm)

    def fits(self, norm: float) -> bool:
        """Whether nothing overflows on a gradient of this norm.

        Coefficients, and all partial sums of them spread by V, are at most the norm in length; a part is at most
        (1 + scale) times that; checks add two gradients, and rows that were rounded are a little too long.
        """
        return 4 * (1 + self.scale) * norm < torch.finfo(self.dtype).max

    def split(self, g: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
        """(kept, removed) of the subject, float64; its inputs are copies in its dtype."""
        kept, removed = self.raw(g.to(self.dtype, copy=True), V.to(self.dtype, copy=True))
        return kept.to(torch.float64, copy=True), removed.to(torch.float64, copy=True)

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

    @property
    def c(self) -> Tensor:
        """V g in float64, (k,)."""
        return self.given.c

    @cached_property
    def c_use(self) -> Tensor:
        """overshoot * gate(c) in float64, (k,)."""
        return self.setting.overshoot * gated(self.c, self.setting.gate)

    @property
    def scale(self) -> float:
        """The largest |c_use| / |c| of the setting."""
        return strength(self.setting.rule)

    @cached_property
    def exact(self) -> Tensor:
        """V^T c_use in float64, (r,)."""
        return self.V.T @ self.c_use

    @cached_property
    def removed_bound(self) -> Tensor:
        """Forward error of `removed`, elementwise (r,): `removed_error`, from what is remembered of the case."""
        product = self.scale * (self.given.relative_error + self.given.underflow_in_removed)
        return product + self.subtraction_error(self.g)

    def subtraction_error(self, g: Tensor) -> Tensor:
        """What may come on top where `kept` is not g minus a stored `removed`, elementwise; g (r,) -> (r,).

        Rows may be subtracted one by one, and `removed` be what is missing from g then: k subtractions and one more of
        quantities that are at most |g| + scale |V|^T |V| |g|.
        """
        if self.setting.subtracts_stored:
            return torch.zeros_like(g)
        k = self.V.shape[0]
        size = self.V.abs()
        return gamma(k + 2, self.dtype) * (g.abs() + self.scale * size.T @ (size @ g.abs())) + underflow(1, self.dtype)

    @cached_property
    def kept_bound(self) -> Tensor:
        """Forward error of `kept` = fl(g - removed), elementwise (r,)."""
        u = unit_roundoff(self.dtype)
        sizes = self.g.abs() + self.exact.abs() + self.removed_bound
        return self.removed_bound + u * sizes + underflow(1, self.dtype)
