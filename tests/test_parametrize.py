"""The suite inside somebody else's pytest."""

import pytest

from invariants import Subject, SuiteError, UnknownInvariantError, parametrize_with_checks

pytest_plugins = ["pytester"]

FILE = """
    from datetime import date
    import torch
    from invariants import Expectation, Subject, parametrize_with_checks
    from reference import Tape

    tape = Tape(
        gradients={{"m": torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))}},
        basis={{"m": torch.eye(6, dtype=torch.float64)[:2]}},
        start={{"m": torch.zeros(6, dtype=torch.float64)}},
    )

    def split(g, V):
        removed = V.T @ torch.relu(V @ g)
        return g - removed, {removed}

    subject = Subject(name="mine"{capability})

    @parametrize_with_checks([subject], tape=tape, only=["split"], expected_violations={expected}{more})
    def test_mine(check):
        check()
"""


def outcomes(pytester, *, removed="removed", capability=", split=split", expected="{}", more=""):
    pytester.makepyfile(FILE.format(removed=removed, capability=capability, expected=expected, more=more))
    return pytester.runpytest("-p", "no:randomly")


def test_a_correct_subject_passes_and_skips_with_reasons(pytester):
    result = outcomes(pytester)
    counts = result.parseoutcomes()
    assert "failed" not in counts
    assert counts["passed"] >= 10
    assert counts["skipped"] >= 1


def test_a_broken_subject_fails_with_the_whole_story(pytester):
    result = outcomes(pytester, removed="2 * removed")
    result.stdout.fnmatch_lines(
        ["*split.conservation: violated", "*likely cause*", "*again*pytest *::test_mine?mine-split.conservation?*"]
    )
    assert result.parseoutcomes()["failed"] >= 1


def test_an_expected_violation_passes_and_is_strict(pytester):
    expected = '{"split.conservation": "known"}'
    assert "mine-split.conservation" not in failed(outcomes(pytester, removed="2 * removed", expected=expected))
    assert "mine-split.conservation" in failed(outcomes(pytester, expected=expected))


def test_an_expectation_can_have_an_owner_and_a_last_day(pytester):
    expected = '[Expectation("split.conservation", "known", owner="kim", expires=date(2027, 6, 30))]'
    good, late = (f", today=date(2027, {month}, 1)" for month in (6, 7))
    assert "mine-split.conservation" not in failed(
        outcomes(pytester, removed="2 * removed", expected=expected, more=good)
    )
    result = outcomes(pytester, removed="2 * removed", expected=expected, more=late)
    result.stdout.fnmatch_lines(["  because       its expectation by kim expired on 2027-06-30: known"])


def test_a_required_check_fails_where_it_would_be_skipped(pytester):
    result = outcomes(pytester, more=', profile="quick", required=["split.additivity"]')
    assert "mine-split.additivity" in failed(result)
    result.stdout.fnmatch_lines(["  because       required, but not applicable: relu is not additive"])


def failed(result):
    return " ".join(line for line in result.outlines if line.startswith("FAILED"))


def test_a_subject_without_capabilities_is_red(pytester):
    result = outcomes(pytester, capability="")
    result.stdout.fnmatch_lines(["*None of the * selected invariants applies to subject 'mine'*"])
    assert result.parseoutcomes()["failed"] == 1


def test_a_subject_that_claims_nothing_is_red_as_it_is_for_verify(pytester):
    result = outcomes(pytester, capability=", split=split, claims=()")
    assert result.parseoutcomes()["failed"] == 1


def test_no_subject_and_unknown_ids_are_refused_at_once():
    with pytest.raises(SuiteError, match="at least one subject"):
        parametrize_with_checks([])
    subject = Subject(name="mine")
    with pytest.raises(UnknownInvariantError, match="typo"):
        parametrize_with_checks([subject], only=["typo"])
    with pytest.raises(UnknownInvariantError, match="typo"):
        parametrize_with_checks([subject], expected_violations={"typo": "?"})
