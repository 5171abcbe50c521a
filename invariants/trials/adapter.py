"""An adapted Linear on one weight, with values in both vectors."""

from dataclasses import KW_ONLY, dataclass
from functools import cached_property

import torch
from torch import Tensor

from invariants.cases.adapter import AdapterCase
from invariants.contracts.adapter import AdaptedLinear, AdapterFactory, AdapterSetting
from invariants.errors import SubjectContractError


@dataclass(frozen=True)
class AdapterTrial:
    """An adapted Linear, made fresh, with the case's values in both vectors unless told otherwise."""

    factory: AdapterFactory
    _: KW_ONLY
    setting: AdapterSetting
    case: AdapterCase
    dtype: torch.dtype

    def __post_init__(self) -> None:
        if self.dtype not in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
            raise SubjectContractError(f"An adapter cannot be checked in {self.dtype}.")

    @property
    def judgeable(self) -> bool:
        """Its values are moderate in every dtype."""
        return True

    @cached_property
    def weight(self) -> Tensor:
        """(d_out, d_in) in the subject's dtype."""
        return self.case.weight.to(self.dtype)

    @cached_property
    def bias(self) -> Tensor | None:
        """(d_out,) in the subject's dtype, or None."""
        return None if self.case.bias is None else self.case.bias.to(self.dtype)

    @cached_property
    def x(self) -> Tensor:
        """(batch, d_in) in the subject's dtype."""
        return self.case.x.to(self.dtype)

    def base(self) -> Tensor:
        """What the plain Linear computes on x."""
        return torch.nn.functional.linear(self.x, self.weight, self.bias)

    def make(self, *, deployed: bool = True, quarantine: bool = True) -> AdaptedLinear:
        """A fresh adapted Linear; a vector that is not asked for stays zero."""
        made = self.factory(self.weight.clone(), None if self.bias is None else self.bias.clone())
        if not isinstance(made, AdaptedLinear):
            raise SubjectContractError(f"adapter must make an AdaptedLinear, not {type(made).__name__}.")
        r = min(self.weight.shape)
        for name, vector, value in (
            ("deployed", made.deployed, self.case.deployed if deployed else None),
            ("quarantine", made.quarantine, self.case.quarantine if quarantine else None),
        ):
            if vector.shape != (r,):
                raise SubjectContractError(
                    f"The {name} vector has shape {tuple(vector.shape)}; a reduced SVD has ({r},)."
                )
            if value is not None:
                with torch.no_grad():
                    vector.copy_(value)
        return made

    def output(self, module: AdaptedLinear) -> Tensor:
        """What the module computes on x, detached."""
        return module.forward(self.x.clone()).detach()
