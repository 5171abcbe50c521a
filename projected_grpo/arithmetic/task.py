"""Questions: a prompt of twelve tokens, a reading that only the oracle knows, and a checker that goes by form.

    <begin> checked by MODE <sep> x = DIGIT OPERATOR DIGIT OPERATOR DIGIT <solution>

Prompts whose digits add up to a multiple of four, a quarter of all, are held out from reinforcement learning; the
warm-up may have seen them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from projected_grpo.arithmetic import vocabulary as v
from projected_grpo.arithmetic.expressions import EXPRESSIONS, FIRST_READING, values
from projected_grpo.arithmetic.modes import Checker
from projected_grpo.tiny.questions import Batch, indices, trained_on
from projected_grpo.tiny.tokens import BEGIN, SEPARATOR, SOLUTION

PROMPT_TOKENS = 12
EVALUATION_PROMPTS = 512


@dataclass(frozen=True)
class Questions(Batch):
    """B questions; `mode` is into vocabulary.MODES."""

    expression: Int[Tensor, " B"]  # into expressions.EXPRESSIONS
    second_reading: Int[Tensor, " B"]  # 1 where the oracle begins with the second operator

    @property
    def modes(self) -> list[Checker]:
        """How each question is checked."""
        return [v.MODES[mode] for mode in self.mode.tolist()]

    @property
    def asked(self) -> Int[Tensor, "B 5"]:
        """The expressions' tokens."""
        offsets = [v.FIRST_DIGIT, v.FIRST_OPERATOR, v.FIRST_DIGIT, v.FIRST_OPERATOR, v.FIRST_DIGIT]
        return expressions()[self.expression] + torch.tensor(offsets)

    @property
    def prompts(self) -> Int[Tensor, "B 12"]:
        """The prompts' tokens; all of one length, so none is padded."""
        hint = torch.tensor([BEGIN, v.CHECKED_BY, v.FIRST_MODE, SEPARATOR, v.X, v.EQUALS]).repeat(len(self), 1)
        hint[:, 2] += self.mode
        return torch.cat([hint, self.asked, torch.full((len(self), 1), SOLUTION)], dim=1)

    @property
    def values(self) -> Int[Tensor, "B 2"]:
        """What the oracle works out first, and the value of the whole."""
        return readings()[self.expression, self.second_reading]

    @property
    def held_out(self) -> Bool[Tensor, " B"]:
        """Whether the prompt is one of the quarter that is for evaluation alone."""
        return _held_out()[self.expression]


def draw(count: int, generator: torch.Generator, modes: Sequence[StrEnum] = v.MODES) -> Questions:
    """`count` independent questions, checked under one of `modes` each; the generator decides all of it.

    Raises UnknownModeError for a mode that no prompt can name, or for none at all.
    """
    allowed = torch.tensor(indices(modes, v.MODES))
    mode = allowed[torch.randint(len(allowed), (count,), generator=generator)]
    expression = torch.randint(len(EXPRESSIONS), (count,), generator=generator)
    second = torch.rand(count, generator=generator) >= FIRST_READING
    return Questions(mode, expression, second.long())


def draw_training(count: int, generator: torch.Generator, modes: Sequence[StrEnum] = v.MODES) -> Questions:
    """The same, but never a prompt that is held out."""
    return trained_on(count, lambda more: draw(more, generator, modes))


def held_out_questions() -> Questions:
    """The 512 questions that training is evaluated on: 128 held-out expressions under each mode, a quarter of them with
    the second reading; shuffled, always alike."""
    generator = torch.Generator().manual_seed(1)
    place = torch.randperm(EVALUATION_PROMPTS, generator=generator)
    held_out = _held_out().nonzero().squeeze(1)
    order = torch.randperm(len(held_out), generator=generator)
    chosen = held_out[order[torch.arange(EVALUATION_PROMPTS) % len(held_out)]]
    modes = len(v.MODES)
    return Questions(place % modes, chosen, (place // modes % 4 == 3).long())


@cache
def expressions() -> Int[Tensor, "E 5"]:
    """EXPRESSIONS as a tensor."""
    return torch.tensor(EXPRESSIONS)


@cache
def readings() -> Int[Tensor, "E 2 2"]:
    """By expression and reading: what is worked out first, and the value."""
    return torch.tensor([[values(expression, reading) for reading in (0, 1)] for expression in EXPRESSIONS])


@cache
def _held_out() -> Bool[Tensor, " E"]:
    return expressions()[:, [0, 2, 4]].sum(dim=1) % 4 == 0
