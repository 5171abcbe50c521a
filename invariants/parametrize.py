"""The suite inside pytest: one test per subject and invariant, without a plugin and without a base class."""

import functools
import os
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from invariants.cases import build_cases
from invariants.errors import SuiteError
from invariants.registry import Invariant, selected
from invariants.report import failure
from invariants.runner import Bench, check_names, recorded_tape
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
    expected_violations: Mapping[str, str]
    _results: dict[str, Result] = field(default_factory=dict, init=False)

    @functools.cached_property
    def bench(self) -> Bench:
        """The trials; made once."""
        return Bench(self.subject, build_cases(self.tape or recorded_tape(), self.seed))

    def result(self, invariant: Invariant) -> Result:
        """One invariant under every setting; measured once."""
        if invariant.id not in self._results:
            self._results[invariant.id] = self.bench.result(invariant, self.expected_violations)
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
            pytest.skip(result.worst.reason)
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
                f"{self.session.subject.name!r}: give it a capability (split, routed_step or adapter), and claims.",
                pytrace=False,
            )


def parametrize_with_checks(
    subjects: Sequence[Subject],
    *,
    expected_violations: Mapping[str, str] | None = None,
    tape: Tape | None = None,
    seed: int = 0,
    only: Collection[str] | None = None,
) -> "Callable[[Callable[..., object]], pytest.MarkDecorator]":
    """Parametrises a test function over every invariant of every subject; the argument is called `check`.

        @parametrize_with_checks([subject], expected_violations={"optimizer.keeps_sum": "AdamW is not linear"})
        def test_my_router(check):
            check()

    Args are those of `verify`. Raises SuiteError if there is no subject, UnknownInvariantError for unknown ids.
    """
    import pytest

    if not subjects:
        raise SuiteError(
            "parametrize_with_checks needs at least one subject; an empty list would pass by checking nothing."
        )
    chosen = selected(only)
    parameters = []
    for subject in subjects:
        check_names(subject, expected_violations or {})
        session = Session(subject, tape, seed, expected_violations or {})
        parameters.append(pytest.param(SomethingApplies(session, chosen), id=f"{subject.name}-something applies"))
        parameters += [pytest.param(Check(session, i), id=f"{subject.name}-{i.id}") for i in chosen]
    return pytest.mark.parametrize("check", parameters)
