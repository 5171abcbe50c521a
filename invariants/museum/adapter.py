"""A Linear adapted along its singular directions, in plain torch, and what goes wrong with it: each broken one
overrides one method."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from invariants.contracts import AdaptedLinear, AdapterFactory
from invariants.museum.subjects import exhibit
from invariants.subject import Subject


class Adapted:
    """y = W x + b + U diag(deployed + quarantine) Vh x, or the same merged into one weight."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.pristine = self.weight = weight  # (d_out, d_in)
        self.bias, self.merged, self.view = bias, False, "trained"
        self.U, self.S, self.Vh = (t.to(weight.dtype) for t in self.decomposed(weight.double()))
        self.deployed = nn.Parameter(torch.zeros_like(self.S))
        self.quarantine = nn.Parameter(torch.zeros_like(self.S))

    def decomposed(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
        return U, S, Vh

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

    def checkpoint(self) -> dict[str, Tensor]:
        factors = {"U": self.U.contiguous(), "Vh": self.Vh.contiguous()}
        return {**factors, "deployed": self.deployed.detach(), "quarantine": self.quarantine.detach()}


def factory(adapted: type[Adapted]) -> AdapterFactory:
    """Makes a fresh adapted Linear of this class whenever it is called."""

    def make(weight: Tensor, bias: Tensor | None) -> AdaptedLinear:
        made = adapted(weight, bias)
        return AdaptedLinear(
            forward=made.forward, deployed=made.deployed, quarantine=made.quarantine, ablated=made.ablated,
            as_base=made.as_base, weight=lambda: made.weight, merge=made.merge, unmerge=made.unmerge,
            export=made.export, checkpoint=made.checkpoint,
        )  # fmt: skip

    return make


CORRECT = factory(Adapted)


def broken_adapter(
    name: str, *, caught_by: str, bug: int | None = None, also: Mapping[str, str] | None = None
) -> Callable[[type[Adapted]], type[Adapted]]:
    """Puts an adapter on show."""

    def show(broken: type[Adapted]) -> type[Adapted]:
        exhibit(name, lambda n: Subject(name=n, adapter=factory(broken)), caught_by=caught_by, bug=bug, also=also)
        return broken

    return show


@broken_adapter(
    "multiplied out instead of added to W x",
    caught_by="adapter.identity_at_zero",
    also={"adapter.ablation": "this forward knows no views, so an ablation changes nothing"},
)
class MultipliedOut(Adapted):
    def forward(self, x: Tensor) -> Tensor:
        return linear(x, (self.U * (self.S + self.trained())) @ self.Vh, self.bias)


@broken_adapter("quarantine detached", caught_by="adapter.equal_gradients")
class QuarantineDetached(Adapted):
    def trained(self) -> Tensor:
        return self.deployed + self.quarantine.detach()


@broken_adapter("decomposed in bfloat16", caught_by="adapter.matches_reference", bug=20)
class DecomposedInBfloat16(Adapted):
    def decomposed(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().decomposed(weight.bfloat16().double())


@broken_adapter("SVD computed under autograd", caught_by="adapter.frozen_basis", bug=41)
class DecomposedUnderAutograd(Adapted):
    def decomposed(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().decomposed(weight.requires_grad_())


@broken_adapter("decomposition cached by the name of the layer", caught_by="adapter.matches_reference", bug=19)
class DecompositionCachedByName(Adapted):
    """The shape is part of the key, for the cache looks at that; the weight under the name is another one by then."""

    name = "layers.0.mlp.up_proj"
    cache: ClassVar[dict[tuple[str, torch.Size], tuple[Tensor, Tensor, Tensor]]] = {}

    def decomposed(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        key = (self.name, weight.shape)
        if key not in self.cache:
            self.cache[key] = super().decomposed(weight)
        return self.cache[key]


@broken_adapter("weight trained too", caught_by="adapter.frozen_basis")
class WeightTrainedToo(Adapted):
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        self.weight = nn.Parameter(weight)


@broken_adapter("merged on top of what is merged already", caught_by="adapter.merge")
class MergedOnTopOfMerged(Adapted):
    def merge(self) -> None:
        self.weight, self.merged = self.weight + self.learned(self.trained()), True


@broken_adapter("signs of U and Vh not paired", caught_by="adapter.matches_reference")
class UnpairedSigns(Adapted):
    def decomposed(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        U, S, Vh = super().decomposed(weight)
        return U * U[0].sign(), S, Vh * Vh[:, :1].sign()


@broken_adapter("ablation disables the whole adapter", caught_by="adapter.ablation")
class AblationDisablesTheAdapter(Adapted):
    def ablated(self) -> AbstractContextManager[None]:
        return self.seen_as("base")


@broken_adapter(
    "ablation zeroes a factor whose initial value was subtracted elsewhere", caught_by="adapter.ablation", bug=17
)
class AblationZeroesTheFactor(Adapted):
    """The quarantine is what a factor has moved from S, and W lacks that S; an ablation sets the factor to zero."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y - (x @ self.Vh.T * self.S) @ self.U.T if self.view == "deployed" else y


@broken_adapter("ablation restored without finally", caught_by="adapter.ablation_restores", bug=16)
class AblationWithoutFinally(Adapted):
    @contextmanager
    def seen_as(self, view: str) -> Iterator[None]:
        before, self.view = self.view, view
        yield
        self.view = before


@broken_adapter("a nested ablation ends the outer one", caught_by="adapter.ablation_restores", bug=16)
class AblationEndsInTrained(Adapted):
    @contextmanager
    def seen_as(self, view: str) -> Iterator[None]:
        self.view = view
        try:
            yield
        finally:
            self.view = "trained"


@broken_adapter("deployed vector stays on in the reference policy", caught_by="adapter.base_policy")
class DeployedVectorStaysOn(Adapted):
    def as_base(self) -> AbstractContextManager[None]:
        return self.seen_as("deployed")


@broken_adapter("quarantine left out of the merged weight", caught_by="adapter.merge")
class QuarantineNotMerged(Adapted):
    def merge(self) -> None:
        self.weight, self.merged = self.pristine + self.learned(self.deployed), True


@broken_adapter(
    "merged and hooked at once",
    caught_by="adapter.merge",
    also={"adapter.unmerge": "the pristine weight is overwritten, and nothing is left to go back to"},
)
class MergedAndHooked(Adapted):
    def merge(self) -> None:
        self.weight = self.pristine = self.pristine + self.learned(self.trained())


@broken_adapter("unmerge by subtraction", caught_by="adapter.unmerge")
class UnmergeBySubtraction(Adapted):
    def unmerge(self) -> None:
        self.weight = self.pristine = self.weight - self.learned(self.trained())
        self.merged = False


@broken_adapter("running sum exported", caught_by="adapter.export", bug=18)
class RunningSumExported(Adapted):
    def export(self) -> dict[str, Tensor]:
        return {"weight": self.pristine + self.learned(self.trained())}


@broken_adapter("quarantine in the exported checkpoint", caught_by="adapter.export", bug=18)
class QuarantineExported(Adapted):
    def export(self) -> dict[str, Tensor]:
        return {**super().export(), "quarantine": self.quarantine}


@broken_adapter("gradient of the first backward counted twice", caught_by="adapter.frozen_basis")
class GradientNotCleared(Adapted):
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        buffer = torch.zeros_like(self.S)
        self.deployed.register_hook(lambda g: buffer.add_(g).clone())  # type: ignore[no-untyped-call]  # torch leaves it untyped


@broken_adapter("U is stored as the decomposition returned it", caught_by="adapter.saves", bug=42)
class CheckpointNotContiguous(Adapted):
    def checkpoint(self) -> dict[str, Tensor]:
        return {**super().checkpoint(), "U": self.U}
