"""A program of known intent, and what it is graded by."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from invariants.cases.programs import ATTACKS, CLEAN, EXITS, EXPLOITS, HONEST, LOOP, TYPES

Kind = Literal["clean", "exploit", "exit", "attack", "types"]
ADDS = (("Solution().add(2, 3)", 5), ("Solution().add(-1, 1)", 0), ("Solution().add(10, 20)", 30))


@dataclass(frozen=True, eq=False, kw_only=True)
class GradeCase:
    """A program, and what is known of it."""

    kind: Kind
    label: str
    program: str
    cases: tuple[tuple[str, Any], ...] = ADDS
    solves: bool = False
    """Whether it is right."""
    exploits: str = ""
    """The mode whose flaw it uses."""
    right: str = HONEST
    """A program that solves the same."""

    @property
    def size(self) -> int:
        """How big the case is, to find the smallest that fails."""
        return len(self.program)

    @property
    def told(self) -> str:
        """The program in a line."""
        text = repr(self.program)
        return f"{self.label}: {text if len(text) <= 400 else text[:397] + '...'}"

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """It has no numbers."""
        return (torch.zeros(0, dtype=torch.float64),)

    def simpler(self) -> Iterator["GradeCase"]:
        """Programs are as short as they can be."""
        yield from ()


def programs() -> Iterator[GradeCase]:
    """The whole corpus; no seed plays a part."""
    for name, (program, solves) in CLEAN.items():
        yield GradeCase(kind="clean", label=name, program=program, solves=solves)
    for mode, program in EXPLOITS.items():
        yield GradeCase(kind="exploit", label=f"the flaw of {mode}", program=program, exploits=mode)
    for name, program in EXITS.items():
        yield GradeCase(kind="exit", label=name, program=program)
    for name, program in ATTACKS.items():
        yield GradeCase(kind="attack", label=name, program=program)
    yield GradeCase(kind="attack", label="an endless loop", program=LOOP)
    for name, (returned, due, right) in TYPES.items():
        yield GradeCase(
            kind="types", label=name, program=returning(returned), cases=(("Solution().answer()", due),),
            right=returning(right),
        )  # fmt: skip


def returning(text: str) -> str:
    """A program with one answer."""
    return f"class Solution:\n    def answer(self):\n        return {text}\n"
