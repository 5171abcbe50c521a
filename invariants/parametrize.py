"""The suite inside pytest: one test per subject and invariant, without a plugin and without a base class."""

import functools
import os
import shlex
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING

from invariants.cases import Profile, build_cases
from invariants.contracts import SETTINGS
from invariants.demands import Demands, demands
from invariants.errors import SuiteError
from invariants.expectations import Expected, expectations
from invariants.failure import failure
from invariants.registry import Invariant, selected
from invariants.runner import Bench, recorded_tape
from invariants.subject import Subject
from invariants.verdict import Result, Verdict
from reference import Tape

if TYPE_CHECKING:
    import pytest


@dataclass(frozen=True, eq=False)
class Session:
    """One subject with its trials, shared by its tests and made when the first of them runs."""

    subject: Subject
    tape: Tape | None
    seed: int
    profile: Profile
    demands: Demands
    _results: dict[str, Result] = field(default_factory=dict, init=False)

    @functools.cached_property
    def bench(self) -> Bench:
        """The trials; made once."""
        return Bench(self.subject, build_cases(self.tape or recorded_tape(), self.seed, self.profile))

    def result(self, invariant: Invariant) -> Result:
        """One invariant under every setting; measured once."""
        if invariant.id not in self._results:
            self._results[invariant.id] = self.bench.result(invariant, self.demands)
        return self._results[invariant.id]


@dataclass(frozen=True, eq=False)
class Check:
    """What the test calls: fails with the whole story, and skips with the reason where nothing applies."""

    session: Session
    invariant: Invariant

    def __call__(self) -> Result:
        """Runs it."""
        import pytest

        result = self.session.result(self.invariant)
        if not result.verdict.green:
            pytest.fail(failure(result, _again()), pytrace=False)
        if result.verdict is Verdict.NOT_APPLICABLE:
            pytest.skip(result.worst.reason)  # the theorem says nothing here; pytest shows why
        return result


def _again() -> str:
    """The command that runs the present test alone."""
    node, _, _ = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" (")
    return f"pytest {shlex.quote(node)}"


@dataclass(frozen=True, eq=False)
class SomethingApplies:
    """Fails if no selected invariant has anything to say of the subject, since a run like that proves nothing."""

    session: Session
    invariants: Sequence[Invariant]

    def __call__(self) -> None:
        """Runs them all, as they will be run one by one."""
        import pytest

        verdicts = [self.session.result(invariant).verdict for invariant in self.invariants]
        if all(verdict is Verdict.NOT_APPLICABLE for verdict in verdicts):
            pytest.fail(
                f"None of the {len(self.invariants)} selected invariants applies to subject "
                f"{self.session.subject.name!r}: give it a capability ({', '.join(SETTINGS)}), and claims.",
                pytrace=False,
            )


def parametrize_with_checks(
    subjects: Sequence[Subject],
    *,
    expected_violations: Expected | None = None,
    required: Collection[str] = (),
    tape: Tape | None = None,
    seed: int = 0,
    profile: Profile = "ci",
    only: Collection[str] | None = None,
    today: date | None = None,
) -> "Callable[[Callable[..., object]], pytest.MarkDecorator]":
    """Parametrises a test function over every invariant of every subject; the argument is called `check`.

        @parametrize_with_checks([subject], expected_violations={"optimizer.keeps_sum": "AdamW is not linear"})
        def test_my_router(check):
            check()

    Args are those of `verify`. Raises SuiteError if there is no subject, and what `verify` raises for names that aren't
    there and expectations that are incomplete.
    """
    import pytest

    if not subjects:
        raise SuiteError(
            "parametrize_with_checks needs at least one subject; an empty list would pass by checking nothing."
        )
    chosen, expected = selected(only), expectations(expected_violations)
    parameters = []
    for subject in subjects:
        asked = demands(subject, chosen, expected_violations=expected, required=required, today=today)
        session = Session(subject, tape, seed, profile, asked)
        parameters.append(pytest.param(SomethingApplies(session, chosen), id=f"{subject.name}-something applies"))
        parameters += [pytest.param(Check(session, i), id=f"{subject.name}-{i.id}") for i in chosen]
    return pytest.mark.parametrize("check", parameters)
