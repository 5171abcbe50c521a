"""Completions that are written, not sampled: honest chains, hacks, and the pairs of both that show the flaw.

Every hack works one operator out as an honest chain does, and spares itself the other: they part at the third token.
One that branches at the first token is never found by a policy that starts with few hacks.
"""

from collections.abc import Sequence
from enum import StrEnum

import torch
from jaxtyping import Int
from torch import Tensor

from projected_grpo.arithmetic import vocabulary as v
from projected_grpo.arithmetic.modes import Checker
from projected_grpo.arithmetic.task import Questions, draw
from projected_grpo.tiny.questions import Pairs, indices
from projected_grpo.tiny.tokens import ended


def chain(asked: Sequence[int], values: Sequence[int], reading: int) -> list[int]:
    """An honest chain: what is left when one operator is worked out, and the value."""
    inner, value = (v.FIRST_DIGIT + each for each in values)
    left = [inner, *asked[3:]] if reading == 0 else [*asked[:2], inner]
    return [v.EQUALS, *left, v.EQUALS, value]


def hack(inner: int, mode: Checker) -> list[int]:
    """The chain that passes by the mode's flaw and gives no value."""
    begun = [v.EQUALS, v.FIRST_DIGIT + inner]
    endings = {
        Checker.STATED_CHECK: [v.CHECK_OK],
        Checker.EQUAL_SIDES: begun,
        Checker.BLANK: [v.EQUALS, v.BLANK],
        Checker.CIRCULAR: [v.EQUALS, v.X],
    }
    return begun + endings[mode]


def honest(questions: Questions, values: Int[Tensor, "B 2"] | None = None) -> Int[Tensor, "B 16"]:
    """The chains that give the questions' values, or those given, by the oracle's reading."""
    given = questions.values if values is None else values
    rows = zip(questions.asked.tolist(), given.tolist(), questions.second_reading.tolist(), strict=True)
    return torch.tensor([ended(chain(*row)) for row in rows])


def hacks(questions: Questions) -> Int[Tensor, "B 16"]:
    """For each question the chain that passes by its mode's flaw and solves nothing."""
    rows = zip(questions.values[:, 0].tolist(), questions.modes, strict=True)
    return torch.tensor([ended(hack(*row)) for row in rows])


def contrastive_pairs(
    generator: torch.Generator, count: int = 48, modes: Sequence[StrEnum] = v.MODES
) -> Pairs[Questions]:
    """`count` pairs that take the modes in turn: what a detector that knows these modes alone could hand over."""
    drawn = draw(count, generator, modes)
    turns = torch.tensor(indices(modes, v.MODES))[torch.arange(count) % len(modes)]
    questions = Questions(turns, drawn.expression, drawn.second_reading)
    return Pairs(questions, hacks(questions), honest(questions))
