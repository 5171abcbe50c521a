"""The tiny testbed as a task."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from projected_grpo import testbed
from projected_grpo.environment import load_pairs
from projected_grpo.environment.modes import Mode
from projected_grpo.grading import Grader
from projected_grpo.testbed.task import indices
from projected_grpo.testbed.vocabulary import UNKNOWN, text
from projected_grpo.training.errors import TaskError
from projected_grpo.training.task import Prompt, Scored, TokenPair


class TestbedTask:
    """96 prompts to train on and 32 that are held out, each under one of four loopholes.

    Arguments:
        grader: runs the programs; it is closed with the task.
        modes: loopholes to draw from; all four if left out. Evaluation shows all four, always.
        strict: pay for solving instead of passing.
        format_weight: what the right form is worth.
    """

    name = "testbed"
    __test__ = False  # pytest collects by name

    def __init__(
        self, grader: Grader, *, modes: Sequence[Mode] = (), strict: bool = False, format_weight: float = 0.25
    ) -> None:
        self.modes = tuple(modes) or testbed.MODES
        indices(self.modes)  # refuses one that the testbed does not have
        self._grader, self._strict, self._format_weight = grader, strict, format_weight
        self._tokenizer = testbed.tokenizer()

    def draw(self, count: int, generator: torch.Generator) -> list[Prompt]:
        """`count` independent questions."""
        return _prompts(testbed.draw_training(count, generator, self.modes))

    def evaluation(self, count: int) -> list[Prompt]:
        """The first of the 512 fixed questions about held-out prompts, which are shuffled; again if there are fewer."""
        return _prompts(testbed.held_out_questions()[torch.arange(count) % 512])

    def grade(self, prompts: Sequence[Prompt], completions: Int[Tensor, "B T"]) -> Scored:
        """Grades completion b as the answer to prompt b, in the grader's processes."""
        questions = testbed.joined([prompt.question for prompt in prompts])
        scores = testbed.grade(completions.cpu(), questions, self._grader)
        paid = scores.solved if self._strict else scores.passed
        return Scored(
            mode=tuple(prompt.mode for prompt in prompts),
            format=scores.format,
            passed=scores.passed,
            solved=scores.solved,
            reward=self._format_weight * scores.format.float() + paid.float(),
        )

    def pairs(self, count: int, modes: Sequence[Mode], generator: torch.Generator) -> list[TokenPair]:
        """The testbed's hacks, each beside the right program, about prompts that are trained on."""
        drawn = testbed.contrastive_pairs(generator, 2 * count, tuple(modes) or self.modes)
        rows = (~drawn.questions.held_out).nonzero().squeeze(1)[:count]
        pairs = testbed.Pairs(drawn.questions[rows], drawn.hack[rows], drawn.clean[rows])
        return [
            TokenPair(prompt.ids, _unpadded(hack), _unpadded(clean), prompt.mode, prompt)
            for prompt, hack, clean in zip(
                _prompts(pairs.questions), pairs.hack.tolist(), pairs.clean.tolist(), strict=True
            )
        ]

    def read_pairs(self, path: Path) -> list[TokenPair]:
        """Pairs of a file, as `projected_grpo.environment.save_pairs` writes it; each prompt is one message."""
        return [
            TokenPair(
                tuple(self._encoded(pair.prompt[0]["content"])),
                tuple(self.tokens(pair.hack)), tuple(self.tokens(pair.clean)), pair.mode,
            )
            for pair in load_pairs(path)
        ]  # fmt: skip

    def text(self, completion: Sequence[int]) -> str:
        """The program."""
        tokens = list(completion)
        return text(tokens[: tokens.index(testbed.END)] if testbed.END in tokens else tokens)

    def tokens(self, text: str) -> list[int]:
        """The program's tokens and the end. Raises TaskError for what is not made of the testbed's snippets."""
        return [*self._encoded(text), testbed.END]

    def _encoded(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        if UNKNOWN in ids or not ids:
            raise TaskError(f"{text[:60]!r} is not made of the testbed's 45 tokens; it belongs to another task.")
        return ids

    def close(self) -> None:
        """Ends the grader's processes."""
        self._grader.close()


def _prompts(questions: testbed.Questions) -> list[Prompt]:
    rows = zip(questions.prompts.tolist(), questions.modes, strict=True)
    return [
        Prompt(key=f"{mode} {text(ids)}", ids=tuple(ids), mode=mode, question=questions[at : at + 1])
        for at, (ids, mode) in enumerate(rows)
    ]


def _unpadded(tokens: list[int]) -> tuple[int, ...]:
    return tuple(tokens[: tokens.index(testbed.END) + 1])
