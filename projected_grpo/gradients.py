"""The gradients that a step finds, and those that it lends to the base optimizer instead."""

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn
from torch.optim import Optimizer

from projected_grpo.clip import Fed
from projected_grpo.preconditions import parameters_of
from projected_grpo.vectors import VectorPair

Loan = tuple[nn.Parameter, Tensor]


@dataclass(frozen=True)
class Found:
    """What has accumulated; parameters without a gradient are left out."""

    vectors: Mapping[str, VectorPair]
    g: dict[str, Tensor]  # module → gradient of the deployed vector (r,)
    others: list[nn.Parameter]  # that are not routed
    other_gradients: list[Tensor]  # of `others`, any shape

    def loans(self, fed: Fed) -> list[Loan]:
        """Which parameter is fed what."""
        deployed = [(self.vectors[name].deployed, gradient) for name, gradient in fed.deployed.items()]
        pairs = ((self.vectors[name].quarantine, gradient) for name, gradient in fed.quarantine.items())
        quarantine = [(vector, gradient) for vector, gradient in pairs if vector is not None]
        return [*deployed, *quarantine, *zip(self.others, fed.others, strict=True)]


def find(vectors: Mapping[str, VectorPair], base: Optimizer) -> Found:
    """Looks through all parameters; gradients of quarantine vectors are dropped, for they equal the deployed ones."""
    for pair in vectors.values():
        if pair.quarantine is not None:
            pair.quarantine.grad = None
    routed = {id(vector) for pair in vectors.values() for vector in pair}
    g = {name: pair.deployed.grad for name, pair in vectors.items() if pair.deployed.grad is not None}
    others = [(p, p.grad) for p in parameters_of(base) if p.grad is not None and id(p) not in routed]
    return Found(vectors, g, [p for p, _ in others], [gradient for _, gradient in others])


@contextmanager
def lent(loans: list[Loan]) -> Iterator[None]:
    """Inside the block the parameters have these gradients, and afterwards their own again, with their own values.

    A gradient that is the parameter's own is lent as a copy: optimizers may write into what they are given, as torch's
    SGD with nesterov and foreach does.
    """
    own = [parameter.grad for parameter, _ in loans]
    try:
        for (parameter, gradient), mine in zip(loans, own, strict=True):
            parameter.grad = gradient.clone() if gradient is mine else gradient
        yield
    finally:
        for (parameter, _), mine in zip(loans, own, strict=True):
            parameter.grad = mine


def drop_on_arrival(vectors: Mapping[str, VectorPair], owner: object) -> None:
    """From now on drops gradients of quarantine vectors as they arrive, for as long as `owner` lives."""
    clear = _clearing_hook(owner)
    for pair in vectors.values():
        if pair.quarantine is not None and pair.quarantine.requires_grad:
            pair.quarantine.register_post_accumulate_grad_hook(clear)  # type: ignore[no-untyped-call]  # torch leaves it untyped


def _clearing_hook(owner: object) -> Callable[[Tensor], None]:
    alive = weakref.ref(owner)

    def clear(parameter: Tensor) -> None:
        if alive() is not None:
            parameter.grad = None

    return clear
