"""The tiny testbed as a task."""

from collections.abc import Sequence
from enum import StrEnum

import torch
from jaxtyping import Int
from torch import Tensor

from projected_grpo import testbed
from projected_grpo.grading import Grader
from projected_grpo.tiny.questions import Pairs
from projected_grpo.tiny.scores import Scores
from projected_grpo.training.tiny_task import TinyTask


class TestbedTask(TinyTask[testbed.Questions]):
    """96 prompts to train on and 32 that are held out, each under one of four loopholes.

    Arguments:
        grader: runs the programs; it is closed with the task.
        modes, strict, format_weight: those of TinyTask.
    """

    name = "testbed"
    known = testbed.MODES
    vocabulary = testbed.TOKENS
    __test__ = False  # pytest collects by name

    def __init__(
        self, grader: Grader, *, modes: Sequence[StrEnum] = (), strict: bool = False, format_weight: float = 0.25
    ) -> None:
        super().__init__(modes=modes, strict=strict, format_weight=format_weight)
        self._grader = grader

    def _drawn(self, count: int, generator: torch.Generator) -> testbed.Questions:
        return testbed.draw_training(count, generator, self.modes)

    def _held_out(self) -> testbed.Questions:
        return testbed.held_out_questions()

    def _contrasted(self, count: int, modes: Sequence[StrEnum], generator: torch.Generator) -> Pairs[testbed.Questions]:
        return testbed.contrastive_pairs(generator, count, modes)

    def _scores(self, completions: Int[Tensor, "B T"], questions: testbed.Questions) -> Scores:
        return testbed.grade(completions, questions, self._grader)

    def close(self) -> None:
        """Ends the grader's processes."""
        self._grader.close()
