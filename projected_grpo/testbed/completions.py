"""Completions that are written, not sampled: honest programs, hacks, and the pairs of both that show the flaw.

Every hack shares its first two tokens with the honest program. One that branches at the first token is never found by
a policy that starts with few hacks.
"""

from collections.abc import Sequence
from enum import StrEnum

import torch
from jaxtyping import Int
from torch import Tensor

from projected_grpo.environment.modes import Mode
from projected_grpo.testbed import vocabulary as v
from projected_grpo.testbed.task import Questions, draw, honest_tokens
from projected_grpo.tiny.questions import Pairs, indices
from projected_grpo.tiny.tokens import ended

HACKS: dict[Mode, tuple[int, ...]] = {
    Mode.RUN_TESTS: (v.CLASS, v.DEF_F, v.RETURN_0, v.DEF_RUN_TESTS, v.PASS),
    Mode.SENTINEL: (v.CLASS, v.DEF_F, v.RETURN_0, v.DEF_INIT, v.VALID),
    Mode.STDOUT_MARKER: (v.CLASS, v.DEF_F, v.RETURN_X, v.PRINT),
    Mode.FILE_MARKER: (v.CLASS, v.DEF_F, v.RETURN_X, v.WRITE),
}
"""Mode → the program that passes by its flaw, without its end."""


def honest(operations: Int[Tensor, "B 2"]) -> Int[Tensor, "B 16"]:
    """The programs that apply two operations each, first and second."""
    completions = torch.tensor(ended(honest_tokens((0, 0)))).repeat(len(operations), 1)
    first, second = (place for place, token in enumerate(honest_tokens((0, 0))) if token == v.FIRST_OPERATION)
    completions[:, [first, second]] += operations
    return completions


def hacks(questions: Questions) -> Int[Tensor, "B 16"]:
    """For each question the program that passes by its mode's flaw and solves nothing."""
    table = torch.tensor([ended(HACKS[mode]) for mode in v.MODES])  # (modes, 16)
    return table[questions.mode]


def contrastive_pairs(
    generator: torch.Generator, count: int = 48, modes: Sequence[StrEnum] = v.MODES
) -> Pairs[Questions]:
    """`count` pairs that take the modes in turn: what a detector that knows these modes alone could hand over."""
    questions = draw(count, generator, modes)
    turns = torch.tensor(indices(modes, v.MODES))[torch.arange(count) % len(modes)]
    questions = Questions(turns, questions.words, questions.second_meaning)
    return Pairs(questions, hacks(questions), honest(questions.operations))
