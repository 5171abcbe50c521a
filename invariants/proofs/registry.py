"""A proof: a statement, and an argument that runs step by step and can fail at every one of them.

An argument is a generator. Each step that it yields is a fact that was decided just then, by computer algebra or by a
solver; the first one that does not hold refutes the statement, and an argument without steps proves nothing. What an
argument is about (a split, an optimizer, a clip) is its parameter, with the correct one as the default, so that a test
can hand in a wrong one and see the statement refuted.
"""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["identity", "counterexample", "float lemma"]
HOW: dict[Kind, str] = {
    "identity": "symbolically checked identity",
    "counterexample": "exact counterexample",
    "float lemma": "solver-proved float lemma",
}


@dataclass(frozen=True)
class Step:
    """One fact of an argument: what was claimed, whether it holds, and what was found where it does not."""

    what: str
    holds: bool
    found: str = ""


class RefutedError(Exception):
    """A step of an argument does not hold, or there was none."""


Argument = Callable[..., Iterator[Step]]


@dataclass(frozen=True, kw_only=True)
class Proof:
    """A statement with its argument."""

    name: str
    theorem: str
    statement: str
    kind: Kind
    supports: tuple[str, ...]
    """Ids of the invariants that rest on it."""
    extends: str
    """How what is checked on small shapes carries over to all k and r."""
    slow: bool
    """Whether it takes longer than a test may."""
    argument: Argument

    def demonstrate(self, *args: Any, **kwargs: Any) -> int:
        """Runs the argument, by default on what the statement is about; returns how many steps hold.

        Raises:
            RefutedError: a step does not hold, or there is none.
        """
        steps = 0
        for step in self.argument(*args, **kwargs):
            if not step.holds:
                raise RefutedError(f"{self.name}: {step.what} does not hold{': ' if step.found else ''}{step.found}")
            steps += 1
        if not steps:
            raise RefutedError(f"{self.name}: the argument has no steps, so it proves nothing")
        return steps


_PROOFS: dict[str, Proof] = {}


def proof(
    name: str,
    *,
    theorem: str,
    supports: tuple[str, ...],
    extends: str,
    kind: Kind = "identity",
    slow: bool = False,
    statement: str = "",
) -> Callable[[Argument], Proof]:
    """Registers an argument; the first paragraph of its docstring is the statement, unless one is given."""

    def register(argument: Argument) -> Proof:
        said = statement or " ".join(inspect.cleandoc(argument.__doc__ or "").partition("\n\n")[0].split())
        if not (said and extends):
            raise TypeError(f"The proof {name} needs a statement and the reason for which it extends to all shapes.")
        if name in _PROOFS:
            raise TypeError(f"The proof {name} is there already.")
        _PROOFS[name] = Proof(
            name=name, theorem=theorem, statement=said, kind=kind, supports=supports, extends=extends, slow=slow,
            argument=argument,
        )  # fmt: skip
        return _PROOFS[name]

    return register


def all_proofs() -> tuple[Proof, ...]:
    """Every registered proof, in the order of declaration."""
    return tuple(_PROOFS.values())
