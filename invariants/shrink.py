"""Small counterexamples: the simplest input on which a subject violates an invariant, of those that were tried.

First by drawing: hypothesis generates small cases and shrinks the first that fails. Then by reducing: the best of
these, or the smallest recorded case that fails if there is none, is made simpler step by step. Both are seeded, and
bounded by a number of evaluations, so that the same run finds the same counterexample on every machine.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import Flaky
from hypothesis.strategies import SearchStrategy
from torch import Tensor

from invariants.cases import Case
from invariants.measurement import Measurement
from invariants.registry import Invariant
from invariants.strategies import CASES
from invariants.trials import Trial
from invariants.verdict import Counterexample

EVALUATIONS = 200
"""How often a check may run in each of the two ways."""


def shrunk(
    invariant: Invariant, recorded: Counterexample, make: Callable[[Case], Trial], *, seed: int
) -> Counterexample:
    """The simplest violation found, or the recorded one if none is simpler.

    make: the trial of the same subject, setting and dtype on another case.
    """
    search = _Search(invariant, make, seed)
    if invariant.capability in CASES:
        search.draw(CASES[invariant.capability]())
    search.reduce(min([*search.found, recorded], key=_simplicity).case)
    simplest = sorted(search.found, key=_simplicity)
    # Again, from a fresh start: a subject that remembers earlier calls may fail once and never more.
    again = (search.measured(example.case) for example in simplest[:3])
    best = next((example for example in again if example is not None), recorded)
    return min(recorded, best, key=_simplicity)


def _simplicity(example: Counterexample) -> tuple[float, ...]:
    """A number that is off says more than one that is none."""
    return (not math.isfinite(example.measurement.residual), *complexity(example.case))


def described(example: Counterexample) -> str:
    """The counterexample in a line: its shapes, its numbers where they are few, and by how much it failed."""
    case, measured = example.case, example.measurement
    told = f"{case.told}, {measured.fed}" if measured.fed else case.told
    return f"{told}: observed {measured.residual:.3g}, allowed {measured.bound:.3g}"


def complexity(case: Case) -> tuple[float, ...]:
    """Smaller is easier to read: fewer numbers, fewer of them not zero, fewer not whole, and those nearer to 1."""
    values = torch.cat([part.flatten() for part in case.parts])
    there = values[values != 0]
    return (case.size, len(there), int((there != there.round()).sum()), _distance_from_one(there))


def _distance_from_one(values: Tensor) -> float:
    return float(values.abs().log2().abs().sum())


class _Violated(Exception):  # noqa: N818  (what hypothesis looks for, and no error)
    """The case that was drawn violates the invariant."""


class _Search:
    """What was tried so far, and what of it failed."""

    def __init__(self, invariant: Invariant, make: Callable[[Case], Trial], seed: int) -> None:
        self.invariant, self.make, self.seed = invariant, make, seed
        self.found: list[Counterexample] = []
        self.evaluations = 0

    def measured(self, case: Case) -> Counterexample | None:
        """The case as a counterexample, if it is one."""
        with torch.random.fork_rng(devices=[]), suppress(Exception, SystemExit):  # an error is another failure
            torch.manual_seed(self.seed)
            trial = self.make(case)
            measurement: Measurement | None = self.invariant.check(trial) if trial.judgeable else None
            if measurement is not None and not measurement.holds:
                return Counterexample(case=case, trial=trial, measurement=measurement)
        return None

    def fails(self, case: Case) -> bool:
        """Whether it violates the invariant; no longer once the evaluations are used up."""
        self.evaluations += 1
        if self.evaluations > EVALUATIONS or (example := self.measured(case)) is None:
            return False
        self.found.append(example)
        return True

    def draw(self, strategy: SearchStrategy[Any]) -> None:
        """Lets hypothesis look for a small case that fails."""

        @seeded(self.seed)
        @settings(
            max_examples=EVALUATIONS, phases=[Phase.generate, Phase.shrink], database=None, deadline=None,
            backend="hypothesis", verbosity=Verbosity.quiet, suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False, print_blob=False,
        )  # fmt: skip
        @given(strategy)
        def holds(case: Any) -> None:
            if self.fails(case):
                raise _Violated

        # Flaky: a subject with a memory, or a last look after the evaluations were used up; what was found was found.
        with suppress(_Violated, Flaky):
            holds()

    def reduce(self, case: Case) -> None:
        """Takes the first simpler case that still fails, until there is none."""
        self.evaluations = 0
        while self.evaluations < EVALUATIONS:
            now = complexity(case)
            simpler = next((each for each in case.simpler() if complexity(each) < now and self.fails(each)), None)
            if simpler is None:
                return
            case = simpler
