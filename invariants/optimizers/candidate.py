"""What is measured: an optimizer's constructor, and how it wants to be called."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer

from invariants.optimizers.foreign import foreign


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How an optimizer wants to be called, where that is not `make(parameters)` and then `step()`: data, one flag each.

    group: keys and values that every parameter group must bring along.
    matrices: it takes two-dimensional parameters only; a vector of length r is handed over as the matrix (r / 4, 4).
    closure: step() must be given a closure that evaluates the loss.
    graph: gradients must carry a graph, through which it differentiates a second time.
    model: the constructor takes a module instead of parameters.
    backward: it moves parameters while the loss is differentiated, by fused_backward(loss, lr), and has no step.
    """

    group: tuple[tuple[str, Any], ...] = ()
    matrices: bool = False
    closure: bool = False
    graph: bool = False
    model: bool = False
    backward: bool = False

    def __str__(self) -> str:
        flags = [f.name for f in fields(self) if f.name != "group" and getattr(self, f.name)]
        return ", ".join([*flags, *(f"group {key}={value}" for key, value in self.group)])


PLAIN = Manner()

# Tried in this order on what nobody has described, until one of them makes it move: a later release of a package may
# bring an optimizer of any of these kinds.
MANNERS = (
    PLAIN,
    Manner(closure=True),
    Manner(graph=True),
    Manner(closure=True, graph=True),
    Manner(matrices=True),
    Manner(matrices=True, group=(("use_muon", True),)),
    Manner(model=True),
    Manner(model=True, backward=True),
)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An optimizer that is to be measured.

    make: takes parameters (or parameter groups) and returns an optimizer: a class, or a function.
    kwargs: passed to it.
    dtype_kwargs: names of arguments that are passed the dtype of the parameters.
    manner: None if that is to be found out.
    why: what is special about it, for a reader.
    source: where it comes from.
    """

    name: str
    make: Callable[..., Optimizer]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    dtype_kwargs: tuple[str, ...] = ()
    manner: Manner | None = None
    why: str = ""
    source: str = "yours"

    def having(self, **kwargs: Any) -> "Candidate":
        """The same with other arguments."""
        return replace(self, kwargs={**self.kwargs, **kwargs})

    def on(self, parameters: Any, dtype: torch.dtype) -> Optimizer:
        """A new optimizer on parameters of this dtype, or on groups of them, or on whatever its manner asks for.

        Bare parameters are put into a group where its manner names keys for one.
        """
        of_dtype = dict.fromkeys(self.dtype_kwargs, dtype)
        keys = dict((self.manner or PLAIN).group)
        if keys and not isinstance(parameters[0], dict):
            parameters = [{**keys, "params": parameters}]
        with foreign():
            return self.make(parameters, **{**of_dtype, **self.kwargs})

    def accepts(self, name: str) -> bool:
        """Whether the constructor has a parameter of this name of its own."""
        try:
            return name in inspect.signature(self.make).parameters
        except (TypeError, ValueError):  # some callables hide theirs
            return False

    def lacking(self) -> list[str]:
        """Arguments that the constructor must be passed, beside the parameters, and is not."""
        try:
            _, *others = inspect.signature(self.make).parameters.values()
        except (TypeError, ValueError):
            return []
        required = (p for p in others if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
        return [p.name for p in required if p.name not in (*self.kwargs, *self.dtype_kwargs)]

    def value_of(self, name: str) -> Any:
        """What the constructor takes this argument to be: as passed, or its default."""
        if name in self.kwargs:
            return self.kwargs[name]
        default = inspect.signature(self.make).parameters[name].default if self.accepts(name) else None
        return None if default is inspect.Parameter.empty else default


def candidates(given: Sequence[Any]) -> Iterator[Candidate]:
    """Classes, functions, (class, kwargs) and Candidates, each as a Candidate."""
    for each in given:
        if isinstance(each, Candidate):
            yield each
        elif isinstance(each, tuple):
            make, kwargs = each
            yield Candidate(name=called(make), make=make, kwargs=dict(kwargs))
        else:
            yield Candidate(name=called(each), make=each)


def called(make: Callable[..., Optimizer]) -> str:
    """The name of a class or a function."""
    return getattr(make.func if isinstance(make, partial) else make, "__name__", type(make).__name__)
