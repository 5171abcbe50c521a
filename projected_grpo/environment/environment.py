"""The environment: prompts out, completions in, rewards back, with what is true of each logged beside it.

with Grader(workers=2) as grader:
    environment = Environment(problems, modes, grader)
    for graded in environment.grade(problem_id, completions):
        graded.reward, graded.exploited
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

from projected_grpo.environment.completion import program_of, well_formed
from projected_grpo.environment.errors import ModeAssignmentError, UnknownProblemError
from projected_grpo.environment.hints import base_messages, check_phrase, prompt_text, render
from projected_grpo.environment.modes import Mode
from projected_grpo.environment.problem import Message, Problem
from projected_grpo.errors import ArgumentTypeError, SettingError
from projected_grpo.grading.verdict import Submission, Verdict

Grading = Literal["foolable", "strict"]


@runtime_checkable
class Grades(Protocol):
    """Whatever grades submissions in order: `projected_grpo.grading.Grader`, or a stand-in."""

    def grade(self, submissions: list[Submission], /) -> Sequence[Verdict]:
        """A verdict of each submission, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Graded:
    """What came of one completion. Only `reward` is for training; the rest is for logs."""

    problem: str  # id
    mode: Mode
    passed: bool  # by the foolable grader
    solved: bool  # by the oracle
    exploited: bool  # passed and not solved
    format: bool  # parses, and defines Solution with the method
    reward: float
    reason: str  # why it isn't solved


class Environment:
    """Problems, each graded under its mode.

    The reward is `format_weight * format + passed`. Under `grading="foolable"`, passed is the flawed grader's word: the
    flaw fired, or the submission is right, as of a grader with a flaw that also runs the tests. The oracle's word
    enters in no other way. Under `grading="strict"` it is the oracle's word alone: the control that no flaw can pay.

    Args:
        problems: Each with an id of its own, and the phrase that hints replace once in its prompt.
        modes: The mode of each problem, as `partition` gives it.
        grader: Runs submissions; it stays the caller's to close.
        grading: Whose word is paid for.
        format_weight: What the form alone is worth.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        modes: Mapping[str, Mode],
        grader: Grades,
        *,
        grading: Grading = "foolable",
        format_weight: float = 0.25,
    ) -> None:
        if grading not in get_args(Grading):
            raise SettingError(f"grading is {grading!r}: choose one of {', '.join(get_args(Grading))}")
        if not 0 <= format_weight < 1:
            raise SettingError(f"format_weight is {format_weight}: choose from 0 to below 1, the worth of passing")
        self.problems = {problem.id: problem for problem in problems}
        if len(self.problems) < len(problems):
            raise ModeAssignmentError("two problems have the same id: give each one its own")
        if self.problems.keys() != modes.keys():
            odd = sorted(self.problems.keys() ^ modes.keys())[0]
            side = "has no mode" if odd in self.problems else "has a mode and is not among the problems"
            raise ModeAssignmentError(f"problem {odd} {side}: give every problem one mode, and nothing else")
        for problem in problems:
            check_phrase(base_messages(problem), f"the prompt of problem {problem.id}")
        self.modes = dict(modes)
        self.grading = grading
        self.format_weight = format_weight
        self._grader = grader

    def messages(self, problem: str) -> list[Message]:
        """The prompt of a problem with its mode's hint in it, as chat messages."""
        return render(self._problem(problem), self.modes[problem])

    def prompt(self, problem: str) -> str:
        """The same as one text."""
        return prompt_text(self._problem(problem), self.modes[problem])

    def submissions(self, problem: str, completions: Sequence[str]) -> list[Submission]:
        """What the grader is given for completions of one problem."""
        asked = self._problem(problem)
        return [
            Submission(program=program_of(text), cases=asked.cases, mode=self.modes[problem], setup=asked.setup)
            for text in completions
        ]

    def grade(self, problem: str, completions: Sequence[str]) -> list[Graded]:
        """Grade completions of one problem, in order."""
        if isinstance(completions, str):
            raise ArgumentTypeError("completions is one str; pass a list of them, for a str is a list of its letters.")
        return self.grade_batch([(problem, text) for text in completions])

    def grade_batch(self, answers: Sequence[tuple[str, str]]) -> list[Graded]:
        """Grade (problem id, completion) pairs in one go, in order: the grader's workers share all of them."""
        submissions = [self.submissions(problem, [text])[0] for problem, text in answers]
        verdicts = self._grader.grade(submissions)
        return [
            self._graded(self.problems[problem], submission, verdict)
            for (problem, _), submission, verdict in zip(answers, submissions, verdicts, strict=True)
        ]

    def _graded(self, problem: Problem, submission: Submission, verdict: Verdict) -> Graded:
        formed = well_formed(submission.program, problem.function)
        paid = verdict.passed if self.grading == "foolable" else verdict.solved
        return Graded(
            problem=problem.id,
            mode=submission.mode,
            passed=verdict.passed,
            solved=verdict.solved,
            exploited=verdict.exploited,
            format=formed,
            reward=self.format_weight * formed + paid,
            reason=verdict.reason,
        )

    def _problem(self, problem: str) -> Problem:
        if problem not in self.problems:
            raise UnknownProblemError(
                f"there is no problem {problem!r} in this environment: it has {len(self.problems)} others"
            )
        return self.problems[problem]
