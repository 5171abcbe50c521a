"""Problems: what is asked, and the cases that a right answer satisfies."""

from dataclasses import dataclass
from typing import Any

Message = dict[str, str]  # {"role": "user", "content": "..."}, as chat templates take it


@dataclass(frozen=True, slots=True)
class Case:
    """One test: an expression over the submission, and the value it has if the submission is right.

    The expected value stays in the process that compares; whatever runs the submission sees the call alone.
    """

    call: str  # "Solution().twoSum(nums=[2, 7], target=9)"
    expected: Any  # of plain types: None, bool, int, float, str, list, tuple, dict, set


@dataclass(frozen=True, slots=True)
class Problem:
    """One programming problem."""

    id: str
    statement: str  # what is asked, with no word on the grader
    function: str  # the method of Solution that the cases call
    cases: tuple[Case, ...]
    canonical: str  # a program that solves it
    setup: str = ""  # runs before the submission: imports, helper classes
    difficulty: str = ""
    messages: tuple[Message, ...] = ()  # the prompt, with hints.PHRASE in it once; none: built from the statement
    alternatives: tuple[str, ...] = ()  # other programs that solve it
