"""Cases drawn from the strategies, and how many of them a profile asks for."""

from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import seed as seeded
from hypothesis.strategies import SearchStrategy

from invariants.cases.adapter import AdapterCase
from invariants.cases.routed_step import StepCase
from invariants.cases.split import SplitCase

Profile = Literal["quick", "ci", "deep"]

DrawnCase = TypeVar("DrawnCase", SplitCase, StepCase, AdapterCase)


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much a profile looks at, beside the grid, which every profile has."""

    tape_steps: int | None  # None for all
    split: int  # how many cases are drawn
    routed_step: int
    adapter: int


PROFILES: dict[Profile, Extent] = {
    "quick": Extent(tape_steps=3, split=0, routed_step=0, adapter=0),
    "ci": Extent(tape_steps=None, split=40, routed_step=4, adapter=10),
    "deep": Extent(tape_steps=None, split=400, routed_step=100, adapter=60),
}


def drawn(strategy: SearchStrategy[DrawnCase], count: int, seed: int) -> tuple[DrawnCase, ...]:
    """Up to `count` cases, fewer where the strategy has no more; the same seed draws the same bits.

    Nothing is read from the database of earlier failures, nor from the profile that is loaded.
    """
    if count == 0:
        return ()
    found: list[DrawnCase] = []

    @seeded(seed)
    @settings(
        max_examples=count, phases=[Phase.generate], database=None, deadline=None, backend="hypothesis",
        verbosity=Verbosity.quiet, suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy)
    def collect(case: DrawnCase) -> None:
        found.append(replace(case, label=f"drawn, number {len(found)}"))

    collect()
    return tuple(found)
