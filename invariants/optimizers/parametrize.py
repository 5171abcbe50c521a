"""Optimizers inside pytest: one test per optimizer, and per property that it is required to have."""

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from invariants.errors import SuiteError
from invariants.optimizers.candidate import Candidate, candidates
from invariants.optimizers.measure import check_optimizer
from invariants.optimizers.report import OptimizerReport, check_names, unmet
from invariants.optimizers.routing import Router

if TYPE_CHECKING:
    import pytest


@dataclass(frozen=True, eq=False)
class Measured:
    """One optimizer, measured when the first of its tests runs."""

    candidate: Candidate
    router: Router | None
    seed: int

    @functools.cached_property
    def report(self) -> OptimizerReport:
        """What was found; measured once."""
        return check_optimizer(self.candidate, router=self.router, seed=self.seed)


@dataclass(frozen=True, eq=False)
class OptimizerCheck:
    """What the test calls: fails unless the optimizer ran and has the property, and returns all that was found."""

    measured: Measured
    name: str | None

    def __call__(self) -> OptimizerReport:
        """Runs it."""
        import pytest

        report = self.measured.report
        if not report.ran:
            pytest.fail(f"{report.name} could not be run: {report.problem}", pytrace=False)
        if self.name is not None and (failures := unmet(report, self.name)):
            pytest.fail("\n".join([*failures, f"advice: {report.advice}"]), pytrace=False)
        return report


def parametrize_optimizers(
    optimizers: Sequence[Any],
    *,
    require: Collection[str] = (),
    router: Router | None = None,
    seed: int = 0,
) -> "Callable[[Callable[..., object]], pytest.MarkDecorator]":
    """Parametrises a test function over optimizers and what they have to be; the argument is called `check`.

        @parametrize_optimizers([MyOptimizer, (MyOptimizer, {"lr": 0.1})], require=["erase_match", "resumes"])
        def test_my_optimizer(check):
            check()

    Args:
        optimizers: what `check_optimizer` takes, each.
        require: properties, guarantees (in all spaces), or guarantee@space; a test each. Without any there is one test,
            that the optimizer can be run.
        router, seed: as `check_optimizer` takes them.

    Raises:
        SuiteError: no optimizer is given, or `require` has a name that nothing has.
    """
    import pytest

    if not optimizers:
        raise SuiteError(
            "parametrize_optimizers needs at least one optimizer; an empty list would pass by checking nothing."
        )
    check_names(require)
    parameters = []
    for candidate in candidates(optimizers):
        measured = Measured(candidate, router, seed)
        for name in require or (None,):
            parameters.append(pytest.param(OptimizerCheck(measured, name), id=f"{candidate.name}-{name or 'runs'}"))
    return pytest.mark.parametrize("check", parameters)
