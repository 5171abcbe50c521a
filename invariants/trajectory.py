"""Where a run went: paths of vectors over steps, in float64."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Gradients = dict[str, Tensor | None]  # module -> (r,), None where nothing was fed


class Path(dict[str, Tensor]):
    """module -> (steps + 1, r): where a vector began, and where it was after each step."""

    @staticmethod
    def of(start: Mapping[str, Tensor], shown: Sequence[Mapping[str, Tensor]]) -> "Path":
        """The path from `start` through what each step showed."""
        return Path({name: torch.stack([p, *(step[name] for step in shown)]) for name, p in start.items()})

    def since(self, step: int) -> "Path":
        """The path from where it was after `step` steps."""
        return Path({name: p[step:] for name, p in self.items()})

    def __add__(self, other: "Path") -> "Path":
        return Path({name: p + other[name] for name, p in self.items()})

    @property
    def updates(self) -> dict[str, Tensor]:
        """What each step added, (steps, r)."""
        return {name: p[1:] - p[:-1] for name, p in self.items()}

    @property
    def displacements(self) -> dict[str, Tensor]:
        """What all steps so far added, (steps, r)."""
        return {name: p[1:] - p[0] for name, p in self.items()}

    @property
    def moved(self) -> float:
        """The largest move of a coordinate in one step."""
        return max(float(d.abs().max()) for d in self.updates.values())

    @property
    def distance(self) -> float:
        """How far the farthest coordinate got from where it began."""
        return max(float(d.abs().max()) for d in self.displacements.values())

    @property
    def size(self) -> float:
        """The largest coordinate."""
        return max(float(p.abs().max()) for p in self.values())


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """What a run showed.

    fed: after each step the gradients that the deployed and the quarantine vectors were fed; None if it isn't shown.
    logged: after each step the values that the loop logged for it, by name; nothing where it logs nothing.
    """

    deployed: Path
    quarantine: Path
    fed: Sequence[tuple[Gradients, Gradients]] | None
    logged: Sequence[Mapping[str, float]]

    def log(self, name: str) -> list[float] | None:
        """One logged value, after every step; None if some step doesn't log it."""
        values = [step.get(name) for step in self.logged]
        return None if None in values else [value for value in values if value is not None]

    @property
    def combined(self) -> Path:
        """deployed + quarantine: where the training model runs."""
        return self.deployed + self.quarantine
