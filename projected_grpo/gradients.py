"""The gradients that a step finds, and those that it lends to the base optimizer instead."""

import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn
from torch.optim import Optimizer

from projected_grpo.clip import Fed
from projected_grpo.preconditions import parameters_of
from projected_grpo.stacks import Layout
from projected_grpo.vectors import VectorPair

Loan = tuple[nn.Parameter, Tensor]


@dataclass(frozen=True)
class Found:
    """What has accumulated; parameters without a gradient are left out."""

    vectors: Mapping[str, VectorPair]
    g: dict[str, Tensor]  # module → gradient of the deployed vector (r,)
    others: list[nn.Parameter]  # that are not routed
    other_gradients: list[Tensor]  # of `others`, any shape

    def loans(self, fed: Fed, layout: Layout) -> list[Loan]:
        """Which parameter is fed what; a module without a gradient is fed nothing."""
        loans: list[Loan] = [*zip(self.others, fed.others, strict=True)]
        for role, stacks in enumerate((fed.deployed, fed.quarantine)):
            for name, gradient in layout.rows(stacks).items() if stacks else ():
                vector = self.vectors[name][role]
                if vector is not None and name in self.g:
                    loans.append((vector, gradient))
        return loans


def find(vectors: Mapping[str, VectorPair], base: Optimizer, routed: Collection[int]) -> Found:
    """Looks through all parameters; gradients of quarantine vectors are dropped, for they equal the deployed ones.

    Arguments:
        vectors: module → its two vectors.
        base: the optimizer that holds them, and perhaps parameters that are not routed.
        routed: the ids of all vectors.
    """
    g = {}
    for name, (deployed, quarantine) in vectors.items():
        if quarantine is not None:
            quarantine.grad = None
        if (gradient := deployed.grad) is not None:
            g[name] = gradient
    others = [(p, p.grad) for p in parameters_of(base) if id(p) not in routed and p.grad is not None]
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
