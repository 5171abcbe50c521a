"""The partition is exact: it meets the quotas whenever anything can, and otherwise names the modes that starve."""

import re
import subprocess
import sys
from collections import Counter
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projected_grpo.environment import (
    LOOPHOLES,
    Mode,
    ModeAssignmentError,
    Problem,
    StarvedModeError,
    bundled_problems,
    eligible_modes,
    even_quota,
    partition,
)

THREE = LOOPHOLES[:3]
EligibleProblems = dict[str, set[Mode]]


def feasible(eligible: EligibleProblems, quota: dict[Mode, int]) -> bool:
    """Whether any assignment meets the quotas, found by trying all of them."""
    choices = [[None, *modes] for modes in eligible.values()]
    return any(
        all(count[mode] == quota[mode] for mode in quota) for count in (Counter(chosen) for chosen in product(*choices))
    )


eligibilities = st.dictionaries(st.sampled_from("abcdef"), st.sets(st.sampled_from(THREE)), max_size=6)
quotas = st.fixed_dictionaries({mode: st.integers(0, 3) for mode in THREE})


@given(eligible=eligibilities, quota=quotas, seed=st.integers(0, 5))
def test_quotas_are_met_exactly_if_any_assignment_meets_them(
    eligible: EligibleProblems, quota: dict[Mode, int], seed: int
) -> None:
    try:
        modes = partition(eligible, quota, seed=seed)
    except StarvedModeError:
        assert not feasible(eligible, quota)
        return
    assert all(modes[name] in eligible[name] for name in modes)
    assert Counter(modes.values()) == Counter({mode: count for mode, count in quota.items() if count})


@given(eligible=eligibilities, quota=quotas)
def test_the_modes_named_violate_halls_condition(eligible: EligibleProblems, quota: dict[Mode, int]) -> None:
    try:
        partition(eligible, quota)
    except StarvedModeError as error:
        for starved in error.starved:
            neighbours = {name for name, modes in eligible.items() if modes & set(starved.modes)}
            assert set(starved.problems) == neighbours
            assert starved.lacking == sum(quota[mode] for mode in starved.modes) - len(neighbours) > 0


def test_the_message_names_modes_numbers_and_problems() -> None:
    eligible = {"a": [Mode.SENTINEL, Mode.RUN_TESTS], "b": [Mode.EXIT_CODE], "c": [Mode.EXIT_CODE]}
    with pytest.raises(StarvedModeError, match=re.escape(
        "run_tests and sentinel together need 3 problems and only 1 (a) is eligible, 2 too few: "
        "lower the quota, or make more problems eligible"
    )):  # fmt: skip
        partition(eligible, {Mode.SENTINEL: 1, Mode.RUN_TESTS: 2, Mode.EXIT_CODE: 2})


def test_modes_that_starve_apart_are_named_apart() -> None:
    eligible = {"a": [Mode.SENTINEL], "b": [Mode.EXIT_CODE]}
    with pytest.raises(StarvedModeError) as caught:
        partition(eligible, {Mode.SENTINEL: 2, Mode.EXIT_CODE: 3, Mode.FILE_MARKER: 1})
    assert {starved.modes: starved.lacking for starved in caught.value.starved} == {
        (Mode.SENTINEL,): 1,
        (Mode.FILE_MARKER,): 1,
        (Mode.EXIT_CODE,): 2,
    }
    assert "file_marker needs 1 problems and none is eligible" in str(caught.value)


def test_a_greedy_choice_would_starve_a_mode() -> None:
    eligible = {"a": THREE, "b": [THREE[0]], "c": THREE[:2]}
    assert partition(eligible) == {"a": THREE[2], "b": THREE[0], "c": THREE[1]}


def test_the_order_of_arguments_does_not_matter_and_the_seed_does() -> None:
    eligible = {str(number): THREE for number in range(30)}
    backwards = dict(reversed(eligible.items()))
    assert partition(eligible, seed=3) == partition(backwards, seed=3)
    assert partition(eligible, seed=3) != partition(eligible, seed=4)


def test_the_assignment_is_the_same_in_every_process() -> None:
    eligible = {str(number): frozenset(LOOPHOLES[number % 4 :]) for number in range(20)}
    code = (
        "from projected_grpo.environment import LOOPHOLES, Mode, partition; "
        "e = {str(i): frozenset(LOOPHOLES[i % 4:]) for i in range(20)}; "
        "print(partition(e, {Mode.SENTINEL: 2, Mode.EXIT_CODE: 9}, seed=1))"
    )
    command = [sys.executable, "-c", code]  # strings hash differently there
    ran = subprocess.run(command, env={"PYTHONHASHSEED": "1"}, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == str(partition(eligible, {Mode.SENTINEL: 2, Mode.EXIT_CODE: 9}, seed=1))


def test_a_thousand_problems_are_shared_evenly() -> None:
    modes = partition({f"problem {number}": LOOPHOLES for number in range(1000)})
    assert sorted(Counter(modes.values()).values()) == [166, 166, 167, 167, 167, 167]


def test_a_negative_quota_is_refused() -> None:
    with pytest.raises(ModeAssignmentError, match="the quota of sentinel is -1"):
        partition({"a": [Mode.SENTINEL]}, {Mode.SENTINEL: -1})


def test_nothing_is_shared_out_over_nothing() -> None:
    assert partition({}) == {}
    assert even_quota(5, THREE) == {THREE[0]: 2, THREE[1]: 2, THREE[2]: 1}


def test_problems_that_print_are_not_eligible_for_the_printed_marker() -> None:
    def problem(name: str, canonical: str) -> Problem:
        return Problem(id=name, statement="", function="f", cases=(), canonical=canonical)

    loud = problem("loud", "class Solution:\n    def f(self):\n        print(1)")
    broken = problem("broken", "class Solution(")
    eligible = eligible_modes([loud, broken, *bundled_problems()])
    assert Mode.STDOUT_MARKER not in eligible["loud"]
    assert Mode.STDOUT_MARKER not in eligible["broken"]
    assert all(eligible[quiet.id] == LOOPHOLES for quiet in bundled_problems())
