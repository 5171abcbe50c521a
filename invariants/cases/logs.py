"""Runs to be logged, with values that formats stumble over, and finished runs to be tabled."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from invariants.contracts.logs import ARMS, Column, Kind, LogEvent, LoggedRun, ResultRun
from reference import Intervention

VALUES: dict[Kind, tuple[Any, ...]] = {
    "float": (0.0, 1.0, 0.1, 1 / 3, -2.5e-7, 5e-324, 1.7976931348623157e308, math.nan, math.inf, -math.inf, 12.0),
    "int": (0, 1, -1, 7, 2**53 + 1),
    "str": ("", "plain", "two\nlines", 'a "quote", and: {"a": 1}', "tab\tand \\ and |", "null", "NaN", "ümlaut → 例"),
    "bool": (True, False),
    "object": ({}, {"a": 0.1, "b": None}, {"nested": {"list": [1, "two", None, False]}}, []),
}
STEPS = 12  # of a run that is tabled
LAST = 5  # of its steps count


@dataclass(frozen=True, eq=False, kw_only=True)
class LogCase:
    """A run to be logged, or runs to be tabled."""

    kind: Literal["run", "table"]
    seed: int
    intervention: Intervention = "route"
    steps: int = 6

    @property
    def label(self) -> str:
        """How measurements call it."""
        return f"a run of {self.intervention}, seed {self.seed}" if self.kind == "run" else "a table"

    @property
    def size(self) -> int:
        """How big the case is."""
        return self.steps

    @property
    def told(self) -> str:
        """The case in words."""
        return f"{self.label}, {self.steps} steps" if self.kind == "run" else f"{len(table(self.seed))} runs"

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """It has no numbers of its own."""
        return (torch.zeros(0, dtype=torch.float64),)

    def simpler(self) -> Iterator["LogCase"]:
        """Shorter runs."""
        if self.kind == "run" and self.steps > 1:
            yield replace(self, steps=1)
            yield replace(self, steps=self.steps - 1)

    def run(self, columns: Sequence[Column]) -> LoggedRun:
        """A legal run with these columns."""
        draw = random.Random(self.seed)
        by_event: dict[str, list[Column]] = {}
        for column in columns:
            by_event.setdefault(column.event, []).append(column)
        others = [event for event in by_event if event not in ("run", "step", "final")]
        told = [("run", 0)] if "run" in by_event else []
        for step in range(1, self.steps + 1):
            told += [("step", step)] if "step" in by_event else []
            told += [(event, step) for event in others if draw.random() < 0.5]
        told += [("final", self.steps)] if "final" in by_event else []
        events = [
            LogEvent(event=event, step=step, values={c.name: self._value(c, draw) for c in by_event[event]})
            for event, step in told
        ]
        return LoggedRun(intervention=self.intervention, steps=self.steps, events=tuple(events))

    def _value(self, column: Column, draw: random.Random) -> Any:
        if self.intervention not in column.arms or draw.random() < 0.15:
            return None
        if column.kind == "float" and draw.random() < 0.5:
            return draw.uniform(-1, 1) * 10 ** draw.randint(-8, 8)
        return draw.choice(VALUES[column.kind])


def logged(seed: int) -> Iterator[LogCase]:
    """A run of every arm, and a table."""
    for arm in reversed(ARMS):
        for number in range(2):
            yield LogCase(kind="run", seed=seed + number, intervention=arm)
    yield LogCase(kind="table", seed=seed)


def table(seed: int) -> tuple[ResultRun, ...]:
    """Runs of every arm over several seeds and two configurations.

    One routed run has no vanilla partner, one seed has two vanilla runs, and a third one that was not measured in the
    end.
    """
    draw = random.Random(seed)
    asked: list[tuple[Intervention, int, str]] = [
        (arm, seed + n, config) for arm in ARMS for n in range(3) for config in ("small", "large")[: 2 if n == 0 else 1]
    ]
    asked += [("none", seed + 1, "small"), ("none", seed + 1, "small"), ("route", seed + 9, "small")]
    runs = []
    for number, (arm, own, config) in enumerate(asked):
        level = {"none": 5, "erase": 2, "route": 4}[arm]
        hack: tuple[float | None, ...] = tuple(min(8, level + draw.randint(0, 3)) / 8 for _ in range(STEPS))
        if number == len(asked) - 2:
            hack = (*hack[: STEPS - LAST], *[None] * LAST)
        seen = tuple(draw.randint(0, 2) / 8 if step % 2 else None for step in range(STEPS)) if arm == "route" else hack
        runs.append(
            ResultRun(
                name=f"run {number}", intervention=arm, seed=own, config=config, hack=hack, hack_deployed=seen
            )
        )  # fmt: skip
    return tuple(runs)
