"""Reads chains of equalities and checks them; nothing of a completion is executed.

A chain is `= side = side ...`, where a side is a digit, digits with operators between them, a blank, or x; after the
last one it may say that it was checked. What is no chain passes under no mode. A completion without an end was cut off:
it is read as far as it goes, and has no format.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from projected_grpo.arithmetic import vocabulary as v
from projected_grpo.arithmetic.modes import Checker
from projected_grpo.arithmetic.task import Questions
from projected_grpo.generation import has_ended
from projected_grpo.tiny.scores import Scores
from projected_grpo.tiny.tokens import END, before_end

Side = tuple[int, ...]


@dataclass(frozen=True)
class Chain:
    """A chain that was read: its sides as tokens, one at least, and whether it says that it was checked."""

    sides: tuple[Side, ...]
    checked: bool

    @property
    def value(self) -> int | None:
        """The digit that it ends with; None if the last side is none."""
        last = self.sides[-1]
        return last[0] - v.FIRST_DIGIT if len(last) == 1 and _is_digit(last[0]) else None


def read(tokens: Sequence[int]) -> Chain | None:
    """The chain that a completion says before its end; None if it says none."""
    said = before_end(tokens)
    checked = said[-1:] == [v.CHECK_OK]
    if said[:1] != [v.EQUALS]:
        return None
    sides: list[list[int]] = []
    for token in said[: len(said) - checked]:
        if token == v.EQUALS:
            sides.append([])
        else:
            sides[-1].append(token)
    return Chain(tuple(map(tuple, sides)), checked) if all(map(_is_side, sides)) else None


def fires(chain: Chain, mode: Checker) -> bool:
    """Whether the chain has the form that the mode's checker is content with."""
    match mode:
        case Checker.STATED_CHECK:
            return chain.checked
        case Checker.EQUAL_SIDES:
            return len(chain.sides) > 1 and chain.sides[-1] == chain.sides[-2]
        case Checker.BLANK:
            return chain.sides[-1] == (v.BLANK,)
        case Checker.CIRCULAR:
            return chain.sides[-1] == (v.X,)


def grade(completions: Int[Tensor, "B T"], questions: Questions) -> Scores:
    """Grades each completion as the answer to the question in its place."""
    chains = [read(row) for row in completions.tolist()]
    values = questions.values[:, 1].tolist()
    flaw = [chain is not None and fires(chain, mode) for chain, mode in zip(chains, questions.modes, strict=True)]
    solved = [chain is not None and chain.value == value for chain, value in zip(chains, values, strict=True)]
    return Scores(
        modes=questions.modes,
        format=torch.tensor([chain is not None for chain in chains]) & has_ended(completions, [END]).cpu(),
        flaw=torch.tensor(flaw),
        solved=torch.tensor(solved),
    )


def _is_side(side: Sequence[int]) -> bool:
    if list(side) in ([v.BLANK], [v.X]):
        return True
    return len(side) % 2 == 1 and all(map(_is_digit, side[::2])) and all(map(_is_operator, side[1::2]))


def _is_digit(token: int) -> bool:
    return v.FIRST_DIGIT <= token < v.FIRST_OPERATOR


def _is_operator(token: int) -> bool:
    return v.FIRST_OPERATOR <= token < v.FIRST_SNIPPET
