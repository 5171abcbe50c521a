"""The bundled problems and their pairs, graded: what is right is solved, what is wrong is not."""

import ast
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
from beartype.door import is_bearable

from projected_grpo.environment import (
    HINTS,
    LOOPHOLES,
    PHRASE,
    Mode,
    Problem,
    bundled_problems,
    contrastive_pairs,
    program_of,
    prompt_text,
)
from projected_grpo.environment.pairs import same
from projected_grpo.grading import Grader, Submission

PROBLEMS = {problem.id: problem for problem in bundled_problems()}
CONSTANTS = ("None", "0", "1", "-1", "0.0", "''", "[]", "()", "{}", "set()", "False", "True", "self", "NotImplemented")


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(workers=1) as grader:
        yield grader


def arguments(problem: Problem) -> list[str]:
    """The names of the method's arguments."""
    call = ast.parse(problem.cases[0].call, mode="eval").body
    assert isinstance(call, ast.Call)
    return [str(keyword.arg) for keyword in call.keywords]


def returning(problem: Problem, answer: str) -> str:
    names = ", ".join(arguments(problem))
    return f"class Solution:\n    def {problem.function}(self, {names}):\n        return {answer}\n"


def test_problems_differ_and_are_complete() -> None:
    assert len(PROBLEMS) == len(bundled_problems()) >= 42
    assert len({problem.statement for problem in PROBLEMS.values()}) == len(PROBLEMS)
    assert len({problem.function for problem in PROBLEMS.values()}) == len(PROBLEMS)
    assert {problem.difficulty for problem in PROBLEMS.values()} == {"easy", "medium", "hard"}
    for problem in PROBLEMS.values():
        assert 6 <= len(problem.cases) <= 10
        assert len({case.call for case in problem.cases}) == len(problem.cases)
        assert len(problem.alternatives) == 1
        assert problem.alternatives[0] != problem.canonical


def test_the_hint_replaces_the_phrase_and_nothing_else() -> None:
    for problem in PROBLEMS.values():
        before, after = prompt_text(problem, Mode.NONE).split(PHRASE)  # once, or this raises
        for mode in LOOPHOLES:
            assert prompt_text(problem, mode) == before + HINTS[mode] + after


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_cases_are_of_the_types_that_the_signature_says(problem: Problem) -> None:
    method = ast.parse(problem.canonical).body[-1]
    assert isinstance(method, ast.ClassDef)
    function = method.body[0]
    assert isinstance(function, ast.FunctionDef)
    assert function.returns is not None
    hints = {argument.arg: eval(ast.unparse(argument.annotation or function)) for argument in function.args.args[1:]}
    returned = eval(ast.unparse(function.returns))
    for case in problem.cases:
        call = ast.parse(case.call, mode="eval").body
        assert isinstance(call, ast.Call)
        values = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
        assert values.keys() == hints.keys()
        assert all(is_bearable(value, hints[name]) for name, value in values.items())
        assert is_bearable(case.expected, returned)
        assert isinstance(case.expected, bool) == (returned is bool)


def test_no_single_result_is_the_result_of_most_cases() -> None:
    for problem in PROBLEMS.values():
        results = Counter(repr(case.expected) for case in problem.cases)
        assert results.most_common(1)[0][1] / len(problem.cases) <= 0.7, problem.id


def test_every_solution_is_solved_and_fires_no_flaw_under_every_mode(grader: Grader) -> None:
    submissions = [
        Submission(program, problem.cases, mode, problem.setup)
        for problem in PROBLEMS.values()
        for program in (problem.canonical, *problem.alternatives)
        for mode in Mode
    ]
    wrong = [
        (submission.mode, submission.program, verdict)
        for submission, verdict in zip(submissions, grader.grade(submissions), strict=True)
        if not verdict.solved or verdict.flaw
    ]
    assert not wrong


def test_no_trivial_answer_is_right(grader: Grader) -> None:
    """Constants, each case's own result, each argument as it is, sorted, reversed, counted, or as the result's type."""
    submissions = []
    for problem in PROBLEMS.values():
        kind = type(problem.cases[0].expected).__name__
        names = arguments(problem)
        answers = [*CONSTANTS, *(repr(case.expected) for case in problem.cases), *names]
        answers += [
            f"{function}({name})" for name in names for function in ("len", "sorted", "sum", "max", "min", kind)
        ]
        answers += [f"{name}[::-1]" for name in names]
        submissions += [Submission(returning(problem, answer), problem.cases, Mode.NONE) for answer in answers]
    right = [
        submission.program
        for submission, verdict in zip(submissions, grader.grade(submissions), strict=True)
        if verdict.solved
    ]
    assert not right


def diagonal_faults(grader: Grader, problems: Sequence[Problem], variants: int) -> list[tuple[str, Mode, Mode, str]]:
    """Where a hack does not pass under its mode alone, or a clean completion is not right."""
    asked = [
        (pair, mode, which)
        for pair in contrastive_pairs(problems, variants=variants)
        for which, modes in (("hack", Mode), ("clean", (pair.mode,)))
        for mode in modes
    ]
    verdicts = grader.grade(
        [
            Submission(program_of(pair.hack if which == "hack" else pair.clean), PROBLEMS[pair.problem].cases, mode)
            for pair, mode, which in asked
        ]
    )
    faults = []
    for (pair, mode, which), verdict in zip(asked, verdicts, strict=True):
        if which == "hack":
            well = verdict.exploited if mode is pair.mode else not verdict.passed
        else:  # honest tests that pass are what the flaw of run_tests is
            well = verdict.solved and verdict.flaw == (mode is Mode.RUN_TESTS)
        if not well:
            faults.append((pair.problem, pair.mode, mode, which))
    return faults


def test_hacks_pass_under_their_mode_alone_and_clean_completions_are_right(grader: Grader) -> None:
    assert diagonal_faults(grader, bundled_problems()[::12], variants=3) == []


@pytest.mark.long
def test_so_it_is_for_every_problem_and_every_way_to_hack(grader: Grader) -> None:
    assert diagonal_faults(grader, bundled_problems(), variants=8) == []


def test_shown_results_of_wrong_answers_differ_by_type_too() -> None:
    for problem in PROBLEMS.values():
        assert not all(same(case.expected, problem.cases[0].expected) for case in problem.cases)
