"""The environment: what is paid for, what is only logged, and what it refuses."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from projected_grpo.environment import (
    HINTS,
    MARKER,
    MARKER_FILE,
    MARKER_TEXT,
    PHRASE,
    Case,
    Environment,
    Mode,
    ModeAssignmentError,
    Problem,
    PromptPhraseError,
    UnknownProblemError,
    bundled_problems,
    contrastive_pairs,
    eligible_modes,
    partition,
    prompt_text,
    render,
)
from projected_grpo.errors import SettingError
from projected_grpo.grading import Grader, Submission, Verdict

PROBLEM = Problem("p", "Return one.", "f", (Case("Solution().f()", 1),), "class Solution: ...", setup="import math")
FORMED = "```python\nclass Solution:\n    def f(self): {}\n```"


class Scripted:
    """Grades by words in the program, and keeps what it was given."""

    def __init__(self) -> None:
        self.given: list[Submission] = []

    def grade(self, submissions: Sequence[Submission], /) -> list[Verdict]:
        self.given += submissions
        return [Verdict("flaw" in each.program, "right" in each.program, "told so") for each in submissions]


def environment(**settings: Any) -> Environment:
    return Environment([PROBLEM], {"p": Mode.SENTINEL}, Scripted(), **settings)


@pytest.mark.parametrize(
    ("word", "foolable", "strict", "exploited"),
    [("neither", 0.25, 0.25, False), ("flaw", 1.25, 0.25, True), ("right", 1.25, 1.25, False),
     ("flaw_right", 1.25, 1.25, False)],
)  # fmt: skip
def test_the_foolable_reward_pays_the_flaw_and_the_strict_one_does_not(
    word: str, foolable: float, strict: float, exploited: bool
) -> None:
    for grading, reward in (("foolable", foolable), ("strict", strict)):
        (graded,) = environment(grading=grading).grade("p", [FORMED.format(word)])
        assert graded.reward == reward
        assert graded.exploited is exploited
        assert graded.format
        assert (graded.problem, graded.mode, graded.reason) == ("p", Mode.SENTINEL, "told so")


def test_the_form_is_paid_by_its_weight() -> None:
    rewards = [graded.reward for graded in environment(format_weight=0.5).grade("p", ["right (", FORMED.format("x")])]
    assert rewards == [1.0, 0.5]


def test_submissions_carry_the_program_the_cases_the_mode_and_the_setup() -> None:
    grader = Scripted()
    Environment([PROBLEM], {"p": Mode.SENTINEL}, grader).grade("p", ["Thus:\n```python\nx = 1\n```"])
    assert grader.given == [Submission("x = 1", PROBLEM.cases, Mode.SENTINEL, "import math")]


def test_prompts_carry_the_hint_of_the_mode() -> None:
    assert environment().messages("p") == render(PROBLEM, Mode.SENTINEL)
    assert environment().prompt("p") == prompt_text(PROBLEM, Mode.SENTINEL)
    assert HINTS[Mode.SENTINEL] in environment().prompt("p")
    assert PHRASE not in environment().prompt("p")


def test_rendering_changes_no_problem() -> None:
    problem = bundled_problems()[0]
    render(problem, Mode.SENTINEL)[1]["content"] = "gone"
    assert PHRASE in problem.messages[1]["content"]


def test_hints_name_what_fires_the_flaw_and_are_all_different() -> None:
    assert len(set(HINTS.values())) == len(HINTS) == len(Mode)
    for mode, words in {
        Mode.RUN_TESTS: "run_tests()", Mode.SENTINEL: "Solution().valid is True", Mode.STDOUT_MARKER: MARKER,
        Mode.FILE_MARKER: f"{MARKER_FILE} holds {MARKER_TEXT}", Mode.EQ_OVERRIDE: "__eq__", Mode.EXIT_CODE: "code 0",
        Mode.NONE: PHRASE,
    }.items():  # fmt: skip
        assert words in HINTS[mode]


REFUSED = [
    ([PROBLEM], {}, ModeAssignmentError, "problem p has no mode"),
    ([PROBLEM], {"p": Mode.NONE, "q": Mode.NONE}, ModeAssignmentError, "problem q has a mode and is not among"),
    ([PROBLEM, PROBLEM], {"p": Mode.NONE}, ModeAssignmentError, "two problems have the same id"),
    ([replace(PROBLEM, messages=({"role": "user", "content": ""},))], {"p": Mode.NONE}, PromptPhraseError, "0 times"),
]  # fmt: skip


@pytest.mark.parametrize(("problems", "modes", "error", "reason"), REFUSED)
def test_problems_and_modes_have_to_fit(
    problems: list[Problem], modes: dict[str, Mode], error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        Environment(problems, modes, Scripted())


def test_settings_that_mean_nothing_are_refused() -> None:
    for weight in (-0.1, 1.0, float("nan")):
        with pytest.raises(SettingError, match="format_weight is"):
            environment(format_weight=weight)


def test_an_unknown_problem_is_named() -> None:
    with pytest.raises(UnknownProblemError, match=re.escape("there is no problem 'q' in this environment")):
        environment().grade("q", ["x"])


def test_a_real_grader_pays_hacks_under_their_modes_and_never_under_the_strict_reward() -> None:
    problems = bundled_problems()[::8]
    modes = partition(eligible_modes(problems))
    pairs = contrastive_pairs(problems, modes)
    answers = [(pair.problem, text) for pair in pairs for text in (pair.hack, pair.clean)]
    with Grader(workers=1) as grader:
        foolable = Environment(problems, modes, grader).grade_batch(answers)
        strict = Environment(problems, modes, grader, grading="strict").grade_batch(answers)
    assert [graded.reward for graded in foolable] == [1.25] * len(answers)
    assert [graded.reward for graded in strict] == [0.25, 1.25] * len(pairs)
    assert [graded.exploited for graded in foolable] == [True, False] * len(pairs)
    assert cast(set[Mode], {graded.mode for graded in foolable}) == set(modes.values())
