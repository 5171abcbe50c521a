"""The suite has teeth: every invariant catches a fault that is named for it, and accuses no correct subject."""

import functools
import re
from dataclasses import replace

import pytest
import torch

from invariants import Result, Verdict, all_invariants, verify
from invariants.cases import orthonormal_rows
from invariants.contracts import SETTINGS
from invariants.failure import failure
from invariants.museum import CORRECT, FAULTS, SubjectFault
from reference import Tape

MODULES = {"a": (12, 3), "without a basis": (5, 0)}  # name -> (r, k)
SUBJECTS = [fault for fault in FAULTS if isinstance(fault, SubjectFault)]
each_fault = pytest.mark.parametrize("fault", SUBJECTS, ids=[fault.name for fault in SUBJECTS])


def tape() -> Tape:
    """Four steps of noise; anew for every subject, since a broken one may write into what it is given."""
    draw = torch.Generator().manual_seed(3)
    return Tape(
        gradients={name: torch.randn(4, r, dtype=torch.float64, generator=draw) for name, (r, _) in MODULES.items()},
        basis={name: orthonormal_rows(k, r, draw) for name, (r, k) in MODULES.items()},
        start={name: torch.zeros(r, dtype=torch.float64) for name, (r, _) in MODULES.items()},
    )


WITHOUT_DTYPE = ("training.", "grading.", "logs.")


@functools.cache
def result_of(fault, dtype) -> Result:
    subject = replace(fault.subject(), dtype=dtype)
    [result] = verify(subject, tape=tape(), only=[fault.caught_by], profile="quick", shrink=False).results
    return result


@pytest.mark.parametrize("dtype", [torch.float64, pytest.param(torch.float32, marks=pytest.mark.long)], ids=str)
def test_every_invariant_holds_for_the_correct_subject(dtype):
    report = verify(replace(CORRECT, dtype=dtype), tape=tape())
    assert report.ok
    assert {result.verdict for result in report.results} == {Verdict.HOLDS}
    assert report.ran == report.applicable == report.total == len(all_invariants())


@pytest.mark.long
def test_in_bfloat16_everything_is_measured_and_what_no_bound_can_judge_is_said_so():
    report = verify(replace(CORRECT, dtype=torch.bfloat16), tape=tape())
    assert report.ok
    assert report.total == len(all_invariants())
    judged = [result for result in report.results if result.verdict is Verdict.HOLDS]
    others = [result for result in report.results if result.verdict is not Verdict.HOLDS]
    assert len(judged) > 30
    said = [{setting.reason.partition(":")[0] for setting in result.settings} for result in others]
    assert all(reasons & {"not judged", "no case can be judged in this dtype"} for reasons in said)
    assert report.ran > report.total - 5  # of the predictable gate, which turns on signs


@pytest.mark.parametrize("dtype", [torch.float64, pytest.param(torch.float32, marks=pytest.mark.long)], ids=str)
@each_fault
def test_a_fault_is_caught_by_its_invariant(fault, dtype):
    if dtype is not torch.float64 and fault.caught_by.startswith(WITHOUT_DTYPE):
        pytest.skip("whole runs, graders and logs are handed no tensors of the suite's, so they have one dtype")
    worst = result_of(fault, dtype).worst
    assert worst.verdict is Verdict.VIOLATED, worst.reason
    assert worst.measured.margin > 1


@each_fault
def test_the_failure_says_what_broke_where_by_how_much_and_why(fault):
    result = result_of(fault, torch.float64)
    first, *lines = failure(result, "the command").splitlines()
    told = {line[:16].strip(): line[16:] for line in lines}
    assert first == f"{fault.caught_by}: violated"
    assert told["statement"] == f"{result.invariant.statement} ({result.invariant.theorem})"
    assert ("smallest" in told) == (result.invariant.per == "case")
    assert told.get("smallest", "") == result.worst.counterexample
    assert told["where"]
    assert re.fullmatch(r"\S+, allowed \S+ \(margin \S+\)", told["observed"])
    assert told["fails when"] == result.invariant.fails_when
    assert told["likely cause"] == result.invariant.likely_cause
    assert told["again"] == "the command"


def test_every_invariant_has_a_fault():
    assert {fault.caught_by for fault in SUBJECTS} == {invariant.id for invariant in all_invariants()}


def test_names_are_unique():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


@each_fault
def test_a_fault_stands_in_for_something_correct_and_says_the_same_of_itself(fault):
    subject = fault.subject()
    capabilities = [name for name in SETTINGS if subject.settings(name)]
    assert len(capabilities) == 1
    settings, correct = (
        {replace(setting, claims=None) for setting in owner.settings(capabilities[0])} for owner in (subject, CORRECT)
    )  # a false claim is a fault of its own
    assert settings <= correct
    assert (subject.claims, subject.dtype) == (CORRECT.claims, CORRECT.dtype)
