"""Who writes the completions that are not the student's: a pool of rollouts, or contrastive pairs."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch

from projected_grpo.training.task import Task, TokenPair


@runtime_checkable
class Teacher(Protocol):
    """Completions by prompt."""

    def draw(self, key: str, count: int, generator: torch.Generator) -> list[str]:
        """`count` completions of a prompt, drawn with replacement; none if the teacher does not have it."""
        ...


class Lessons:
    """Contrastive pairs as a teacher: to each prompt that they are about, hacks and solutions alike."""

    def __init__(self, task: Task, pairs: Sequence[TokenPair]) -> None:
        self._texts: defaultdict[str, list[str]] = defaultdict(list)
        for pair in pairs:
            if pair.about is not None:
                self._texts[pair.about.key] += [task.text(pair.hack), task.text(pair.clean)]

    def draw(self, key: str, count: int, generator: torch.Generator) -> list[str]:
        """See `Teacher`."""
        return drawn(self._texts.get(key, []), count, generator)


def drawn(texts: Sequence[str], count: int, generator: torch.Generator) -> list[str]:
    """`count` of them with replacement; none if there are none."""
    if not texts:
        return []
    return [texts[at] for at in torch.randint(len(texts), (count,), generator=generator).tolist()]
