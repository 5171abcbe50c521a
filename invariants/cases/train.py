"""A short run: how many steps, and from which seed."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainCase:
    """A short run, which checks ask for again and again with one thing changed."""

    seed: int
    steps: int = 5
    """Enough to be stopped at several, with a memory of earlier ones."""

    @property
    def label(self) -> str:
        """How measurements call it."""
        return f"{self.steps} steps, seed {self.seed}"

    @property
    def size(self) -> int:
        """How big the case is."""
        return self.steps

    @property
    def told(self) -> str:
        """The case in words."""
        return self.label

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """It has no numbers of its own."""
        return (torch.zeros(0, dtype=torch.float64),)

    def simpler(self) -> Iterator["TrainCase"]:
        """Shorter runs."""
        if self.steps > 2:
            yield TrainCase(seed=self.seed, steps=self.steps - 1)


def runs(seed: int) -> Iterator[TrainCase]:
    """One is enough: what a run may not depend on, no run may."""
    yield TrainCase(seed=seed)
