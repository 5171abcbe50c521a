"""The SVD adapter: a Linear whose weight moves along its own singular directions.

    W = U diag(S) Vh (reduced, r = min(d_in, d_out))
    y = W x + b + U diag(deployed + quarantine) Vh x

Two trainable vectors in R^r, both zero at the start; U, S, Vh and W are frozen. Adapting the singular
values alone is from Sun et al. 2025 (Transformer-squared, arXiv:2501.06252, section 3.1).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

View = Literal["trained", "deployed", "base"]


def decompose(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Reduced SVD (d_out, d_in) -> (d_out, r), (r,), (r, d_in), free of autograd.

    A singular pair is unique up to a common sign: each column of U has its largest entry positive.
    """
    with torch.no_grad():
        U, S, Vh = torch.linalg.svd(weight.double(), full_matrices=False)
        sign = torch.sign(U.gather(0, U.abs().argmax(0, keepdim=True))).squeeze(0)  # (r,)
        return U * sign, S, Vh * sign[:, None]


class SVDLinear(nn.Module):
    """A frozen Linear plus U diag(deployed + quarantine) Vh."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.U, _, self.Vh = decompose(base.weight)
        self.deployed = nn.Parameter(torch.zeros(self.Vh.shape[0], dtype=base.weight.dtype))
        self.quarantine = nn.Parameter(torch.zeros_like(self.deployed))
        self.view: View = "trained"

    def forward(self, x: Tensor) -> Tensor:  # (..., d_in) -> (..., d_out)
        """The linear map that the current view stands for."""
        y: Tensor = self.base(x)
        if self.view == "base":
            return y
        delta = self.deployed if self.view == "deployed" else self.deployed + self.quarantine  # (r,)
        return y + (x @ self.Vh.T * delta) @ self.U.T

    def merged_weight(self, *, deployed_only: bool) -> Tensor:
        """W + U diag(delta) Vh, (d_out, d_in): what a plain Linear needs to act the same."""
        delta = self.deployed if deployed_only else self.deployed + self.quarantine
        return (self.base.weight + (self.U * delta) @ self.Vh).detach()


def adapt(model: nn.Module) -> dict[str, SVDLinear]:
    """Replaces every Linear of a model by its SVDLinear, except the output head, and freezes the rest."""
    model.requires_grad_(False)
    adapted = {}
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and not name.endswith("lm_head"):
            parent, _, leaf = name.rpartition(".")
            adapted[name] = SVDLinear(module)
            setattr(model.get_submodule(parent), leaf, adapted[name])
    return adapted


@contextmanager
def viewed_as(view: View, adapted: Mapping[str, SVDLinear]) -> Iterator[None]:
    """Inside the block the model acts as deployed (quarantine left out), or as the base it started from."""
    before = {name: module.view for name, module in adapted.items()}
    try:
        for module in adapted.values():
            module.view = view
        yield
    finally:
        for name, module in adapted.items():
            module.view = before[name]
