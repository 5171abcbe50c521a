"""The arithmetic testbed as a task."""

from collections.abc import Sequence
from enum import StrEnum

import torch
from jaxtyping import Int
from torch import Tensor

from projected_grpo import arithmetic
from projected_grpo.tiny.questions import Pairs
from projected_grpo.tiny.scores import Scores
from projected_grpo.training.tiny_task import TinyTask


class ArithmeticTask(TinyTask[arithmetic.Questions]):
    """Expressions without brackets, each checked by one of four checkers that go by form; nothing is executed.

    Arguments: those of TinyTask.
    """

    name = "arithmetic"
    known = arithmetic.MODES
    vocabulary = arithmetic.TOKENS

    def _drawn(self, count: int, generator: torch.Generator) -> arithmetic.Questions:
        return arithmetic.draw_training(count, generator, self.modes)

    def _held_out(self) -> arithmetic.Questions:
        return arithmetic.held_out_questions()

    def _contrasted(
        self, count: int, modes: Sequence[StrEnum], generator: torch.Generator
    ) -> Pairs[arithmetic.Questions]:
        return arithmetic.contrastive_pairs(generator, count, modes)

    def _scores(self, completions: Int[Tensor, "B T"], questions: arithmetic.Questions) -> Scores:
        return arithmetic.grade(completions, questions)
