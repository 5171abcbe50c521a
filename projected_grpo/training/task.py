"""What a trainer asks of a task: prompts as tokens, grades of what was sampled, contrastive pairs.

Nothing in the trainer knows more of a task than this. The two tiny testbeds and programming problems are three of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt; the task alone knows what its question is."""

    key: str  # equal for prompts that read alike and are graded alike
    ids: tuple[int, ...]
    mode: StrEnum
    question: Any


@dataclass(frozen=True)
class Scored:
    """What became of B completions. `reward` trains; `solved` is the oracle's word, and is for logs alone."""

    mode: tuple[StrEnum, ...]
    format: Bool[Tensor, " B"]
    passed: Bool[Tensor, " B"]
    solved: Bool[Tensor, " B"]
    reward: Float[Tensor, " B"]

    @property
    def exploited(self) -> Bool[Tensor, " B"]:
        """Passed and wrong: a hack."""
        return self.passed & ~self.solved


@dataclass(frozen=True, slots=True)
class TokenPair:
    """A hack and a clean completion of one prompt, with their ends."""

    prompt: tuple[int, ...]
    hack: tuple[int, ...]
    clean: tuple[int, ...]
    mode: StrEnum
    about: Prompt | None = None  # the task's own prompt; None for a pair of a file or a pool


@runtime_checkable
class Task(Protocol):
    """Prompts, grades and pairs."""

    @property
    def name(self) -> str:
        """As the command line has it."""
        ...

    @property
    def modes(self) -> tuple[StrEnum, ...]:
        """The loopholes that its prompts are graded under."""
        ...

    def draw(self, count: int, generator: torch.Generator) -> list[Prompt]:
        """Training prompts."""
        ...

    def evaluation(self, count: int) -> list[Prompt]:
        """Prompts that are held out, always the same."""
        ...

    def grade(self, prompts: Sequence[Prompt], completions: Int[Tensor, "B T"]) -> Scored:
        """Grades completion b as the answer to prompt b; nothing of it runs in this process."""
        ...

    def pairs(self, count: int, modes: Sequence[StrEnum], generator: torch.Generator) -> list[TokenPair]:
        """Contrastive pairs that show the hacks of these modes."""
        ...

    def read_pairs(self, path: Path) -> list[TokenPair]:
        """Contrastive pairs of a file."""
        ...

    def text(self, completion: Sequence[int]) -> str:
        """What a completion reads as, without its end and padding."""
        ...

    def tokens(self, text: str) -> list[int]:
        """The other way, with an end."""
        ...

    def close(self) -> None:
        """Ends the processes that grade."""
        ...
