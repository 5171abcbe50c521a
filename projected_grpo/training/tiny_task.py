"""The tiny testbeds as tasks: what they have in common."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Generic, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from projected_grpo.environment import load_pairs
from projected_grpo.tiny.questions import Batch, Pairs, indices, joined
from projected_grpo.tiny.scores import Scores
from projected_grpo.tiny.tokens import END, UNKNOWN, before_end, word_level
from projected_grpo.training.errors import TaskError
from projected_grpo.training.task import Prompt, Scored, TokenPair

Questions = TypeVar("Questions", bound=Batch)


class TinyTask(ABC, Generic[Questions]):
    """Questions of a testbed, each under one of its loopholes.

    Arguments:
        modes: loopholes to draw from; all that the testbed has if left out. Evaluation shows all of them, always.
        strict: pay for solving instead of passing.
        format_weight: what the right form is worth.

    A testbed says by these what it is:
        name: as the command line has it.
        known: its loopholes.
        vocabulary: what each of its tokens reads as.
    """

    name: str
    known: tuple[StrEnum, ...]
    vocabulary: tuple[str, ...]

    def __init__(self, *, modes: Sequence[StrEnum] = (), strict: bool = False, format_weight: float = 0.25) -> None:
        self.modes = tuple(modes) or self.known
        indices(self.modes, self.known)  # refuses one that the testbed does not have
        self._strict, self._format_weight = strict, format_weight
        self._tokenizer = word_level(self.vocabulary)

    @abstractmethod
    def _drawn(self, count: int, generator: torch.Generator) -> Questions:
        """Questions to train on, of the task's modes."""

    @abstractmethod
    def _held_out(self) -> Questions:
        """The fixed questions about held-out prompts, shuffled."""

    @abstractmethod
    def _contrasted(self, count: int, modes: Sequence[StrEnum], generator: torch.Generator) -> Pairs[Questions]:
        """Pairs about any prompts, of these modes in turn."""

    @abstractmethod
    def _scores(self, completions: Int[Tensor, "B T"], questions: Questions) -> Scores:
        """What became of the completions."""

    def draw(self, count: int, generator: torch.Generator) -> list[Prompt]:
        """`count` independent questions."""
        return self._prompts(self._drawn(count, generator))

    def evaluation(self, count: int) -> list[Prompt]:
        """The first of the fixed questions about held-out prompts; again if there are fewer."""
        fixed = self._held_out()
        return self._prompts(fixed[torch.arange(count) % len(fixed)])

    def grade(self, prompts: Sequence[Prompt], completions: Int[Tensor, "B T"]) -> Scored:
        """Grades completion b as the answer to prompt b."""
        scores = self._scores(completions.cpu(), joined([prompt.question for prompt in prompts]))
        return Scored(
            mode=tuple(prompt.mode for prompt in prompts),
            format=scores.format,
            passed=scores.passed,
            solved=scores.solved,
            reward=scores.rewards(strict=self._strict, format_weight=self._format_weight),
        )

    def pairs(self, count: int, modes: Sequence[StrEnum], generator: torch.Generator) -> list[TokenPair]:
        """The testbed's hacks, each beside the right completion, about prompts that are trained on."""
        drawn = self._contrasted(2 * count, tuple(modes) or self.modes, generator)
        rows = (~drawn.questions.held_out).nonzero().squeeze(1)[:count]
        prompts = self._prompts(drawn.questions[rows])
        return [
            TokenPair(prompt.ids, _with_end(hack), _with_end(clean), prompt.mode, prompt)
            for prompt, hack, clean in zip(prompts, drawn.hack[rows].tolist(), drawn.clean[rows].tolist(), strict=True)
        ]

    def read_pairs(self, path: Path) -> list[TokenPair]:
        """Pairs of a file, as `projected_grpo.environment.save_pairs` writes it; each prompt is one message."""
        return [
            TokenPair(
                tuple(self._encoded(pair.prompt[0]["content"])),
                tuple(self.tokens(pair.hack)), tuple(self.tokens(pair.clean)), pair.mode,
            )
            for pair in load_pairs(path, modes=self.known)
        ]  # fmt: skip

    def text(self, completion: Sequence[int]) -> str:
        """What the completion says."""
        return "".join(self.vocabulary[token] for token in before_end(completion))

    def tokens(self, text: str) -> list[int]:
        """The completion's tokens and the end. Raises TaskError for what is not made of the testbed's tokens."""
        return [*self._encoded(text), END]

    def close(self) -> None:
        """Ends the processes that grade, where there are any."""

    def _encoded(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        if UNKNOWN in ids or not ids:
            raise TaskError(
                f"{text[:60]!r} is not made of the {len(self.vocabulary)} tokens of {self.name}; it belongs to another "
                "task."
            )
        return ids

    def _prompts(self, questions: Questions) -> list[Prompt]:
        rows = zip(questions.prompts.tolist(), questions.modes, strict=True)
        return [
            Prompt(f"{mode} {self.text(ids)}", tuple(ids), mode, questions[at : at + 1])
            for at, (ids, mode) in enumerate(rows)
        ]


def _with_end(tokens: list[int]) -> tuple[int, ...]:
    return (*before_end(tokens), END)
