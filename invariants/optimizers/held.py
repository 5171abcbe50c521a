"""An optimizer on vectors (r,), stepped on the gradients that the vectors hold, in whatever manner it wants.

Some want a closure, and some differentiate a second time. What they are then shown is the simplest loss that has the
given gradients here: a bowl of curvature 1, L(p) = |g|^2 / 2 + <g, p - here> + |p - here|^2 / 2. Its gradient g + p -
here is handed over at p = here, as a tensor that depends on p, and its value is |g|^2 / 2, as at the bowl's rim.
Asked again inside one step, it hands out the same g: a recorded gradient can't be evaluated elsewhere.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from invariants.optimizers.candidate import PLAIN, Candidate
from invariants.optimizers.foreign import foreign

COLUMNS = 4  # of the matrix that a vector is handed over as


class Held:
    """A freshly made optimizer, with the vectors that it moves.

    groups: the vectors, parameter group by parameter group.
    as_generator: hands every group over as a generator instead of a list.
    """

    def __init__(
        self, candidate: Candidate, groups: Sequence[Sequence[nn.Parameter]], *, as_generator: bool = False
    ) -> None:
        self.manner = candidate.manner or PLAIN
        self.vectors = [vector for group in groups for vector in group]
        shown = self._shown(groups)
        self.own = [own for group in shown for own in group]
        self.evaluations = 0
        self._given: list[Tensor | None] = []
        self.optimizer: Optimizer = candidate.on(self._argument(shown, as_generator), self.vectors[0].dtype)
        self._plain_step = unobserved_step(self.optimizer)

    def _shown(self, groups: Sequence[Sequence[nn.Parameter]]) -> list[list[nn.Parameter]]:
        """The parameters that the optimizer gets to see: the vectors, or matrices in the same memory."""
        if not self.manner.matrices:
            return [list(group) for group in groups]
        return [[nn.Parameter(vector.detach().view(-1, COLUMNS)) for vector in group] for group in groups]

    def _argument(self, groups: list[list[nn.Parameter]], as_generator: bool) -> Any:
        if self.manner.model:
            return Layers(own for group in groups for own in group)
        handed = [(own for own in group) if as_generator else group for group in groups]
        if self.manner.group or len(groups) > 1:
            return [{**dict(self.manner.group), "params": parameters} for parameters in handed]
        return handed[0]

    def step(self, *, with_closure: bool = False) -> None:
        """One step on the gradients of the vectors; with a closure also where the optimizer could do without one."""
        with foreign():
            self._step(with_closure)

    def _step(self, with_closure: bool) -> None:
        if self.manner == PLAIN and not with_closure:
            self._plain_step()
            return
        # Copies, in the shapes that the optimizer sees: it may write into its own, and look again in the same step.
        pairs = zip(self.own, self.vectors, strict=True)
        self._given = [None if v.grad is None else v.grad.detach().clone().view_as(own) for own, v in pairs]
        if self.manner.backward:
            self._step_in_backward()
        else:
            self._hand_over()
            closure: Any = [self.closure] if with_closure or self.manner.closure else []
            self.optimizer.step(*closure)

    def closure(self) -> Tensor:
        """Evaluates the loss: its gradients are where the optimizer looks for them, its value is returned."""
        self.evaluations += 1
        self._hand_over()
        return torch.stack([g.square().sum() for g in self._given if g is not None]).sum() / 2

    def _hand_over(self) -> None:
        for own, g in zip(self.own, self._given, strict=True):
            if g is None:
                own.grad = None
            elif self.manner.graph:
                with torch.enable_grad():
                    own.grad = g + (own - own.detach())
            else:
                own.grad = g.clone()

    def _step_in_backward(self) -> None:
        for own in self.own:
            own.grad = None
        with torch.enable_grad():
            terms = [(own * g).sum() for own, g in zip(self.own, self._given, strict=True) if g is not None]
            loss = torch.stack(terms).sum()
            self.optimizer.fused_backward(loss, self.optimizer.param_groups[0]["lr"])  # type: ignore[attr-defined]  # its manner says that it has one

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's."""
        with foreign():
            return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Into the optimizer."""
        with foreign():
            self.optimizer.load_state_dict(state)


class Layers(nn.Module):
    """A module that holds parameters, for an optimizer that asks for a model."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__()
        for number, parameter in enumerate(parameters):
            self.register_parameter(f"layer{number}", parameter)


def unobserved_step(optimizer: Optimizer) -> Callable[[], Any]:
    """Its step, without the hook for profilers that torch wraps around it: on tiny vectors that takes a fifth of the
    time. Where somebody looks on (a hook, or a step that was exchanged on the instance) it is the step as it is."""
    step = type(optimizer).step
    bare = getattr(step, "__wrapped__", None) if getattr(step, "hooked", False) else None
    watched = any(
        getattr(optimizer, name, None) for name in ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
    )
    if bare is None or watched or "step" in vars(optimizer):
        return optimizer.step
    return functools.partial(bare, optimizer)
