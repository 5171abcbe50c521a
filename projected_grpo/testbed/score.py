"""Grades of sampled programs. What they are worth is said in `projected_grpo.tiny.scores`."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor, nn

from projected_grpo.generation import has_ended
from projected_grpo.grading.verdict import Submission, Verdict
from projected_grpo.testbed.program import is_python, programs, well_formed
from projected_grpo.testbed.task import Questions, evaluation_questions
from projected_grpo.tiny.scores import Rates, Scores, answer
from projected_grpo.tiny.tokens import END

NO_PYTHON = Verdict(flaw=False, solved=False, reason="no Python")


@runtime_checkable
class Judge(Protocol):
    """Whatever runs submissions, away from this process, and judges them in order."""

    def grade(self, submissions: list[Submission]) -> list[Verdict]:
        """One verdict per submission."""
        ...


def submissions(completions: Int[Tensor, "B T"], questions: Questions) -> list[Submission]:
    """What the grader is handed: each completion's program with its question's hidden cases, flaw and examples."""
    return [
        Submission(program=program, cases=problem.cases, mode=mode, setup=problem.setup)
        for program, problem, mode in zip(programs(completions), questions.problems, questions.modes, strict=True)
    ]


def grade(completions: Int[Tensor, "B T"], questions: Questions, grader: Judge) -> Scores:
    """Grades each completion as the answer to the question in its place.

    A completion without an end was cut off: it is graded as far as it goes, and has no format. What is no Python, one
    in fourteen at first, isn't handed to the grader: it would get a process of its own there, to fail in.
    """
    handed = submissions(completions, questions)
    runs = [is_python(submission.program) for submission in handed]
    answers = iter(grader.grade([submission for submission, run in zip(handed, runs, strict=True) if run]))
    verdicts = [next(answers) if run else NO_PYTHON for run in runs]
    complete = torch.tensor([well_formed(submission.program) for submission in handed], dtype=torch.bool)
    return Scores(
        modes=questions.modes,
        format=complete & has_ended(completions, [END]).cpu(),
        flaw=torch.tensor([verdict.flaw for verdict in verdicts], dtype=torch.bool),
        solved=torch.tensor([verdict.solved for verdict in verdicts], dtype=torch.bool),
    )


def evaluate(model: nn.Module, grader: Judge, *, seed: int = 0) -> Rates:
    """The model's rates on the 512 fixed questions; sampling has a random state of its own."""
    questions = evaluation_questions()
    return grade(answer(model, questions, torch.Generator().manual_seed(seed)), questions, grader).rates()
