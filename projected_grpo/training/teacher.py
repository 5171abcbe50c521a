"""Who writes the completions that are not the student's: a pool of rollouts, or contrastive pairs."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch

from projected_grpo.training.task import TokenPair


@runtime_checkable
class Teacher(Protocol):
    """Completions by prompt."""

    def draw(self, key: str, count: int, generator: torch.Generator) -> list[tuple[int, ...]]:
        """`count` completions of a prompt as tokens, drawn with replacement; none if the teacher does not have it."""
        ...


class Lessons:
    """Contrastive pairs as a teacher: to each prompt that they are about, hacks and solutions alike."""

    def __init__(self, pairs: Sequence[TokenPair]) -> None:
        self._completions: defaultdict[str, list[tuple[int, ...]]] = defaultdict(list)
        for pair in pairs:
            if pair.about is not None:
                self._completions[pair.about.key] += [pair.hack, pair.clean]

    def draw(self, key: str, count: int, generator: torch.Generator) -> list[tuple[int, ...]]:
        """See `Teacher`."""
        return drawn(self._completions.get(key, []), count, generator)


def drawn(completions: Sequence[tuple[int, ...]], count: int, generator: torch.Generator) -> list[tuple[int, ...]]:
    """`count` of them with replacement; none if there are none."""
    if not completions:
        return []
    return [completions[at] for at in torch.randint(len(completions), (count,), generator=generator).tolist()]
