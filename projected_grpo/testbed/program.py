"""From tokens to programs, and whether a program is complete. Nothing here runs one: what a policy wrote is hostile."""

import ast
from functools import lru_cache

from jaxtyping import Int
from torch import Tensor

from projected_grpo.testbed import vocabulary as v
from projected_grpo.tiny.tokens import before_end


def programs(completions: Int[Tensor, "B T"]) -> list[str]:
    """What each completion says up to its end, or all of it if it has none."""
    return [v.text(before_end(row)) for row in completions.tolist()]


@lru_cache(maxsize=1 << 16)
def is_python(program: str) -> bool:
    """Whether a program can be parsed; one that cannot never runs, so it fires no flaw and solves nothing.

    >>> is_python("x=1"), is_python("x=")
    (True, False)
    """
    try:
        ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


@lru_cache(maxsize=1 << 16)
def well_formed(program: str) -> bool:
    """Whether a program is Python that defines `class Solution` with a method f that ends by returning something.

    >>> well_formed("class Solution:\\n def f(self,x):\\n  return 0\\n")
    True
    >>> well_formed("class Solution:\\n def f(self,x):\\n  x=")
    False
    """
    if not is_python(program):
        return False
    body = ast.parse(program).body
    classes = [node for node in body if isinstance(node, ast.ClassDef) and node.name == "Solution"]
    methods = [node for cls in classes for node in cls.body if isinstance(node, ast.FunctionDef) and node.name == "f"]
    return len(classes) == len(methods) == 1 and isinstance(methods[0].body[-1], ast.Return)
