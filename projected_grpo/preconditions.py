"""What has to be true before a routed step can be taken at all: of the base optimizer, and of the gradients."""

import inspect
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from projected_grpo.errors import (
    ClosureOptimizerError,
    NonFiniteGradientError,
    UnsupportedCombinationError,
    VectorNotOptimizedError,
)
from projected_grpo.routing import Routing
from projected_grpo.vectors import VectorPair


def parameters_of(optimizer: Optimizer) -> Iterator[nn.Parameter]:
    """All parameters of an optimizer, group by group."""
    return (p for group in optimizer.param_groups for p in group["params"])


def check_base(base: Optimizer, vectors: Mapping[str, VectorPair], routing: Routing) -> None:
    """Refuses an optimizer that cannot be routed as the settings ask.

    Raises:
        VectorNotOptimizedError: it does not hold a deployed vector, or under route a quarantine vector.
        UnsupportedCombinationError: route without a quarantine vector; or a base that moves parameters outside
            step(), in a space where its point is split.
        ClosureOptimizerError: its step() needs a closure.
    """
    held = {id(parameter) for parameter in parameters_of(base)}
    for name, pair in vectors.items():
        for role, vector in zip(VectorPair._fields, pair, strict=True):
            if role == "quarantine" and routing.intervention != "route":
                continue
            if vector is None:
                raise UnsupportedCombinationError(
                    f"{name} has no {role} vector to route into; adapt the model with one, or use intervention='erase'."
                )
            if id(vector) not in held:
                raise VectorNotOptimizedError(
                    f"{name}: the base optimizer does not hold the {role} vector; build it with both vectors of every "
                    "module, after everything that replaces Parameter objects."
                )
    closure = inspect.signature(type(base).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ClosureOptimizerError(
            f"{type(base).__name__}.step() needs a closure and evaluates the loss several times, where no split can "
            "reach; use an optimizer that steps on the gradients it finds."
        )
    if routing.moves_the_point and callable(getattr(base, "eval", None)):
        raise UnsupportedCombinationError(
            f"{type(base).__name__} has an eval() that moves parameters outside step(), so its point can't be split "
            f"in {routing.space} space; use space='gradient', or another optimizer."
        )


def check_finite(g: Mapping[str, Tensor], others: Sequence[Tensor], *norms: Tensor) -> None:
    """Refuses gradients whose norms are not finite, with one synchronisation.

    Arguments:
        g, others: the gradients that were found, for the error's text.
        norms: 0-dimensional, of all gradients and of what becomes of them.

    Raises:
        NonFiniteGradientError: names the first module, or the place among the parameters that are not routed, with NaN
            or infinity; or says that the norm overflows.
    """
    home = norms[0].device
    if bool(torch.isfinite(torch.stack([norm.to(home) for norm in norms])).all()):
        return
    named = [*g.items(), *((f"unrouted parameter {i}", gradient) for i, gradient in enumerate(others))]
    for name, gradient in named:
        values = gradient.coalesce().values() if gradient.is_sparse else gradient
        bad = int((~torch.isfinite(values)).sum())
        if bad:
            raise NonFiniteGradientError(
                f"{name}: {bad} of {values.numel()} entries of its gradient are NaN or infinite; nothing was changed, "
                "so drop this batch (zero_grad) and go on, or lower the learning rate."
            )
    raise NonFiniteGradientError(
        "Every gradient is finite, but the norm of all of them, or of their parts after the split, overflows; nothing "
        "was changed, so scale the loss down."
    )
