"""Batches of questions as tensors of indices; cheap to repeat, to select, to join and to turn into prompts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Generic, TypeVar

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from projected_grpo.tiny.errors import UnknownModeError

Questions = TypeVar("Questions", bound="Batch")


@dataclass(frozen=True)
class Batch:
    """B questions; a testbed adds its own fields, all of B rows, and says what they read as."""

    mode: Int[Tensor, " B"]  # into the testbed's modes

    def __len__(self) -> int:
        return len(self.mode)

    @property
    def modes(self) -> Sequence[StrEnum]:
        """How each question is graded."""
        raise NotImplementedError

    @property
    def prompts(self) -> Int[Tensor, "B P"]:
        """The prompts' tokens; all of one length, so none is padded."""
        raise NotImplementedError

    @property
    def held_out(self) -> Bool[Tensor, " B"]:
        """Whether the prompt is one of those that are for evaluation alone."""
        raise NotImplementedError

    def repeat(self: Questions, group: int) -> Questions:
        """Each question `group` times in a row: B → B · group."""
        return self[torch.arange(len(self)).repeat_interleave(group)]

    def __getitem__(self: Questions, index: Shaped[Tensor, " n"] | slice) -> Questions:
        return type(self)(*(getattr(self, own.name)[index] for own in fields(self)))


@dataclass(frozen=True)
class Pairs(Generic[Questions]):
    """Contrastive pairs: to each question a hack and the honest, right completion."""

    questions: Questions
    hack: Int[Tensor, "pairs 16"]
    clean: Int[Tensor, "pairs 16"]

    def __len__(self) -> int:
        return len(self.questions)


def joined(questions: Sequence[Questions]) -> Questions:
    """Questions one after the other."""
    kind = type(questions[0])
    return kind(*(torch.cat([getattr(each, own.name) for each in questions]) for own in fields(kind)))


def trained_on(count: int, draw: Callable[[int], Questions]) -> Questions:
    """`count` of the questions that are drawn, without those whose prompt is held out."""
    found: list[Questions] = []
    while sum(map(len, found)) < count:
        drawn = draw(2 * count)
        found.append(drawn[~drawn.held_out])
    return joined(found)[:count]


def indices(modes: Sequence[StrEnum], known: Sequence[StrEnum]) -> list[int]:
    """Where modes stand among those known. Raises UnknownModeError for one that isn't there, or for none at all."""
    for mode in modes:
        if mode not in known:
            raise UnknownModeError(
                f"The testbed has no prompt for the mode {mode.value!r}; it knows {', '.join(known)}."
            )
    if not modes:
        raise UnknownModeError("There is no mode to draw questions from; name at least one.")
    return [known.index(mode) for mode in modes]
