"""A Linear adapted along its singular directions, in plain torch, and what goes wrong with it: each broken one
overrides one method."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from invariants import AdaptedLinear


class Adapted:
    """y = W x + b + U diag(deployed + quarantine) Vh x, or the same merged into one weight."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.pristine = self.weight = weight  # (d_out, d_in)
        self.bias, self.merged, self.view = bias, False, "trained"
        self.U, self.S, self.Vh = (t.to(weight.dtype) for t in self.decomposed(weight.double()))
        self.deployed = nn.Parameter(torch.zeros_like(self.S))
        self.quarantine = nn.Parameter(torch.zeros_like(self.S))

    def decomposed(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return torch.linalg.svd(weight, full_matrices=False)

    def trained(self) -> Tensor:
        return self.deployed + self.quarantine

    def forward(self, x: Tensor) -> Tensor:  # (batch, d_in) -> (batch, d_out)
        if self.merged and self.view == "trained":
            return linear(x, self.weight, self.bias)
        y = linear(x, self.pristine, self.bias)
        if self.view == "base":
            return y
        delta = self.trained() if self.view == "trained" else self.deployed
        return y + (x @ self.Vh.T * delta) @ self.U.T

    @contextmanager
    def seen_as(self, view: str) -> Iterator[None]:
        before, self.view = self.view, view
        try:
            yield
        finally:
            self.view = before

    def ablated(self) -> AbstractContextManager[None]:
        return self.seen_as("deployed")

    def as_base(self) -> AbstractContextManager[None]:
        return self.seen_as("base")

    def learned(self, delta: Tensor) -> Tensor:
        """U diag(delta) Vh, (d_out, d_in)."""
        return ((self.U * delta) @ self.Vh).detach()

    def merge(self) -> None:
        self.weight, self.merged = self.pristine + self.learned(self.trained()), True

    def unmerge(self) -> None:
        self.weight, self.merged = self.pristine, False

    def export(self) -> dict[str, Tensor]:
        return {"weight": self.pristine + self.learned(self.deployed)}


def factory(adapted: type[Adapted]):
    """Makes a fresh adapted Linear of this class whenever it is called."""

    def make(weight: Tensor, bias: Tensor | None) -> AdaptedLinear:
        made = adapted(weight, bias)
        return AdaptedLinear(
            forward=made.forward, deployed=made.deployed, quarantine=made.quarantine, ablated=made.ablated,
            as_base=made.as_base, weight=lambda: made.weight, merge=made.merge, unmerge=made.unmerge,
            export=made.export,
        )  # fmt: skip

    return make


CORRECT = factory(Adapted)


class MultipliedOut(Adapted):
    def forward(self, x: Tensor) -> Tensor:
        return linear(x, (self.U * (self.S + self.trained())) @ self.Vh, self.bias)


class QuarantineDetached(Adapted):
    def trained(self) -> Tensor:
        return self.deployed + self.quarantine.detach()


class DecomposedInBfloat16(Adapted):
    def decomposed(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().decomposed(weight.bfloat16().double())


class DecomposedUnderAutograd(Adapted):
    def decomposed(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().decomposed(weight.requires_grad_())


class DecompositionCachedByShape(Adapted):
    cache: ClassVar[dict[torch.Size, tuple[Tensor, Tensor, Tensor]]] = {}

    def decomposed(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if weight.shape not in self.cache:
            self.cache[weight.shape] = super().decomposed(weight)
        return self.cache[weight.shape]


class WeightTrainedToo(Adapted):
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        self.weight = nn.Parameter(weight)


class MergedOnTopOfMerged(Adapted):
    def merge(self) -> None:
        self.weight, self.merged = self.weight + self.learned(self.trained()), True


class UnpairedSigns(Adapted):
    def decomposed(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        U, S, Vh = super().decomposed(weight)
        return U * U[0].sign(), S, Vh * Vh[:, :1].sign()


class AblationDisablesTheAdapter(Adapted):
    def ablated(self) -> AbstractContextManager[None]:
        return self.seen_as("base")


class AblationWithoutFinally(Adapted):
    @contextmanager
    def seen_as(self, view: str) -> Iterator[None]:
        before, self.view = self.view, view
        yield
        self.view = before


class AblationEndsInTrained(Adapted):
    @contextmanager
    def seen_as(self, view: str) -> Iterator[None]:
        self.view = view
        try:
            yield
        finally:
            self.view = "trained"


class DeployedVectorStaysOn(Adapted):
    def as_base(self) -> AbstractContextManager[None]:
        return self.seen_as("deployed")


class QuarantineNotMerged(Adapted):
    def merge(self) -> None:
        self.weight, self.merged = self.pristine + self.learned(self.deployed), True


class MergedAndHooked(Adapted):
    def merge(self) -> None:
        self.weight = self.pristine = self.pristine + self.learned(self.trained())


class UnmergeBySubtraction(Adapted):
    def unmerge(self) -> None:
        self.weight = self.pristine = self.weight - self.learned(self.trained())
        self.merged = False


class RunningSumExported(Adapted):
    def export(self) -> dict[str, Tensor]:
        return {"weight": self.pristine + self.learned(self.trained())}


class QuarantineExported(Adapted):
    def export(self) -> dict[str, Tensor]:
        return {**super().export(), "quarantine": self.quarantine}


class GradientNotCleared(Adapted):
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        buffer = torch.zeros_like(self.S)
        self.deployed.register_hook(lambda g: buffer.add_(g).clone())
