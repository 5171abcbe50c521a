"""A snippet: what an invariant states, in a few lines of plain torch that are copied into a standalone script.

A snippet is a function from what a script holds (a subject's callable, the literal inputs) to everything that the
invariant compares, label -> tensor of residuals; zero is what should be there. Its parameters are named for what it
takes. It uses torch, its parameters and other functions of this package, whose source is copied along.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FunctionType
from typing import Any, TypeVar

from torch import Tensor

Residuals = dict[str, Tensor]
Algebra = TypeVar("Algebra", bound=Callable[..., Residuals])


@dataclass(frozen=True, kw_only=True)
class Snippet:
    """The algebra of one invariant."""

    id: str
    algebra: Callable[..., Residuals]
    allows: str
    """The formula of the derived bound, in a line."""

    @property
    def call(self) -> str:
        """How a script calls it."""
        return f"{self.algebra.__name__}({', '.join(inspect.signature(self.algebra).parameters)})"

    def functions(self) -> list[str]:
        """The source of the algebra after that of everything of ours that it uses."""
        assert isinstance(self.algebra, FunctionType), "a snippet is a plain function"
        return [source_of(function) for function in _with_what_it_uses(self.algebra, {})]


SNIPPETS: dict[str, Snippet] = {}
"""id -> snippet; filled as the files of this package are imported."""

IMPOSSIBLE: dict[str, str] = {}
"""id -> why no script can show it."""


def snippet(id: str, *, allows: str) -> Callable[[Algebra], Algebra]:
    """Registers the algebra of an invariant."""

    def register(algebra: Algebra) -> Algebra:
        if id in SNIPPETS:
            raise TypeError(f"{id} has a snippet already.")
        SNIPPETS[id] = Snippet(id=id, algebra=algebra, allows=allows)
        return algebra

    return register


def source_of(thing: Any) -> str:
    """The source of a function or class of this package, without its decorators."""
    source = textwrap.dedent(inspect.getsource(thing))
    definition = ast.parse(source).body[0]
    assert isinstance(definition, ast.FunctionDef | ast.ClassDef)
    return "\n".join(source.splitlines()[definition.lineno - 1 :])


def _with_what_it_uses(function: FunctionType, seen: dict[str, None]) -> Iterator[FunctionType]:
    for node in ast.walk(ast.parse(source_of(function))):
        used = function.__globals__.get(node.id) if isinstance(node, ast.Name) else None
        ours = isinstance(used, FunctionType) and used.__module__.startswith(__package__ or "")
        if isinstance(used, FunctionType) and ours and used is not function and used.__name__ not in seen:
            seen[used.__name__] = None
            yield from _with_what_it_uses(used, seen)
    yield function
