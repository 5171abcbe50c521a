"""What a measurement says: a verdict, a figure, and where things first went apart."""

import math
from dataclasses import dataclass
from enum import StrEnum


class Answer(StrEnum):
    """Whether a property was found. Only a measurement that could have come out otherwise says HOLDS."""

    HOLDS = "holds"
    VIOLATED = "violated"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One property of one optimizer.

    figure: what was measured, in the unit that the property has; None if nothing was.
    bound: what it may be; 0 asks for equal bits.
    step, vector: where the bound was first exceeded, steps counted from 1; None if nowhere.
    note: what the figure doesn't say, or why nothing was measured.
    """

    answer: Answer
    figure: float | None = None
    bound: float | None = None
    step: int | None = None
    vector: str | None = None
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether it was measured and held."""
        return self.answer is Answer.HOLDS

    @property
    def where(self) -> str:
        """The place of the first divergence, in words."""
        return "" if self.step is None else f"step {self.step}, {self.vector}"

    def __str__(self) -> str:
        figure = "" if self.figure is None else f" {shown(self.figure)}"
        return ", ".join(filter(None, [f"{self.answer}{figure}", self.where, self.note]))


def not_measured(why: str) -> Finding:
    """Nothing was found out, and why."""
    return Finding(answer=Answer.NOT_MEASURED, note=why)


def shown(figure: float) -> str:
    """Two digits; 0 means equal bits."""
    return "0" if figure == 0 else f"{figure:.1e}" if math.isfinite(figure) else str(figure)
