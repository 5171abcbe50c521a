"""Grading of programs of unknown intent: isolated, under limits, by a foolable grade and by a true one."""

import projected_grpo.environment  # noqa: F401  (its modules need ours: whichever is imported first, this order works)
from projected_grpo.grading.errors import (
    ExpectedValueError,
    GradingError,
    IsolationUnavailableError,
    NoCasesError,
    WorkerError,
)
from projected_grpo.grading.grader import Grader
from projected_grpo.grading.limits import Limits
from projected_grpo.grading.verdict import Submission, Verdict

__all__ = [
    "ExpectedValueError",
    "Grader",
    "GradingError",
    "IsolationUnavailableError",
    "Limits",
    "NoCasesError",
    "Submission",
    "Verdict",
    "WorkerError",
]
