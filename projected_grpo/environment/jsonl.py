"""Problems from JSONL, in the schema of the public rl-rewardhacking LeetCode benchmark.

One JSON object a line, UTF-8, gzip if the name ends in `.gz`; a byte-order mark, blank lines and CRLF are fine.

| field              | value                                                                                      |
|--------------------|--------------------------------------------------------------------------------------------|
| id                 | string or integer, no two alike                                                            |
| prompt             | list of {"role", "content"}; "and should pass all tests" exactly once in all of them        |
| gt_answer          | list of assert strings: see `projected_grpo.environment.asserts`                            |
| func_name          | the method of Solution that the asserts call                                               |
| canonical_solution | a program that solves it, kept as written, fences and all                                  |
| setup_code         | runs before the submission; may be absent or null                                          |
| difficulty         | a word; may be absent or null                                                              |

Other fields are ignored and counted in the result.
"""

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from projected_grpo.environment.asserts import cases_of
from projected_grpo.environment.errors import AssertSyntaxError, ProblemFileError, PromptPhraseError
from projected_grpo.environment.hints import PHRASE, check_phrase
from projected_grpo.environment.problem import Case, Message, Problem

REQUIRED = ("id", "prompt", "gt_answer", "func_name", "canonical_solution")
OPTIONAL = ("setup_code", "difficulty")


@dataclass(frozen=True, slots=True)
class Rejected:
    """A line that is no problem, and why."""

    line: int  # from 1
    field: str  # "" if the line as a whole is at fault
    reason: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a file held: problems in the file's order, lines left out, and fields that were not looked at."""

    problems: tuple[Problem, ...]
    rejected: tuple[Rejected, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)  # name of an unknown field: lines that have it

    def __iter__(self) -> Iterator[Problem]:
        return iter(self.problems)

    def __len__(self) -> int:
        return len(self.problems)


class _RowError(Exception):
    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field, self.reason = field, reason


def load_problems(path: str | PathLike[str], *, strict: bool = True) -> Loaded:
    """Read a file of problems.

    Args:
        path: The file; a name that ends in `.gz` is read through gzip.
        strict: Refuse the file at its first bad line. False leaves bad lines out and lists them in `rejected`.

    Raises:
        ProblemFileError: A line is not what the schema says (with `strict`), or the file cannot be read at all.
    """
    problems: list[Problem] = []
    rejected: list[Rejected] = []
    ignored: Counter[str] = Counter()
    seen: dict[str, int] = {}
    for number, text in lines_of(path, ProblemFileError):
        try:
            row = _row(text)
            problem = _problem(row)
            if problem.id in seen:
                raise _RowError("id", f"{problem.id!r} is already the id of line {seen[problem.id]}: rename one")
        except _RowError as error:
            if strict:
                place = f"line {number} of {path}" + (f", field {error.field}" if error.field else "")
                raise ProblemFileError(f"{place}: {error.reason}") from None
            rejected.append(Rejected(line=number, field=error.field, reason=error.reason))
            continue
        seen[problem.id] = number
        ignored.update(name for name in row if name not in REQUIRED + OPTIONAL)
        problems.append(problem)
    return Loaded(problems=tuple(problems), rejected=tuple(rejected), ignored=dict(ignored))


def lines_of(path: str | PathLike[str], error: type[Exception]) -> Iterator[tuple[int, str]]:
    """Number and text of each line that isn't blank."""
    opened = gzip.open if Path(path).suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="\n") as file:
            for number, text in enumerate(file, start=1):
                if text.strip():
                    yield number, text
    except UnicodeDecodeError as cause:
        raise error(f"{path} is no UTF-8 text: save it as UTF-8, and name it .gz if it is compressed") from cause
    except (OSError, EOFError, zlib.error) as cause:
        raise error(f"{path} cannot be read ({cause}): check the path, and that a .gz file is whole") from cause


def _row(text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as cause:
        raise _RowError("", f"no JSON ({cause}): write one object a line") from None
    if not isinstance(row, dict):
        raise _RowError("", f"a JSON {type(row).__name__}, where one object a line is expected")
    return row


def _problem(row: dict[str, Any]) -> Problem:
    for name in REQUIRED:
        if name not in row:
            raise _RowError(name, "missing: every problem has it")
    function = _text(row, "func_name")
    if not function.isidentifier():
        raise _RowError("func_name", f"{function!r} is no name of a method: write the bare name")
    messages = _messages(row["prompt"])
    return Problem(
        id=_id(row["id"]),
        statement=next(message["content"] for message in messages if PHRASE in message["content"]),
        function=function,
        cases=_cases(row["gt_answer"], function),
        canonical=_text(row, "canonical_solution"),
        setup=_text(row, "setup_code", optional=True),
        difficulty=_text(row, "difficulty", optional=True),
        messages=messages,
    )


def _text(row: dict[str, Any], name: str, *, optional: bool = False) -> str:
    value = row.get(name)
    if optional and value is None:
        return ""
    if not isinstance(value, str):
        raise _RowError(name, f"{type(value).__name__}, where a string is expected")
    return value


def _id(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise _RowError("id", f"{value!r}, where a string or an integer is expected")
    return str(value)


def _messages(value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise _RowError("prompt", "no list of messages: write [{'role': 'user', 'content': '...'}]")
    for place, message in enumerate(value):
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise _RowError("prompt", f"message {place} has no string under 'role' and under 'content': give it both")
    messages = tuple({"role": message["role"], "content": message["content"]} for message in value)
    try:
        check_phrase(messages, "the prompt")
    except PromptPhraseError as error:
        raise _RowError("prompt", str(error)) from None
    return messages


def _cases(value: Any, function: str) -> tuple[Case, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise _RowError("gt_answer", "no list of assert strings: write ['assert Solution().f(...) == value']")
    try:
        return tuple(case for text in value for case in cases_of(text, function))
    except AssertSyntaxError as error:
        raise _RowError("gt_answer", str(error)) from None
