"""What a worker is given at a time: one submission, or many small ones that are likely to be harmless."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from projected_grpo.environment.modes import MARKER_FILE, Mode
from projected_grpo.grading.answers import Ended, frames_of, judge
from projected_grpo.grading.inside.allowlist import SIZE
from projected_grpo.grading.inside.runner import END
from projected_grpo.grading.limits import Limits
from projected_grpo.grading.verdict import Submission, Verdict
from projected_grpo.grading.worker import Worker

LARGEST_BATCH = 256
SMALLEST_BATCH = 8
BATCH_SECONDS = 1.0  # a batch takes a few hundredths of that; what holds it up is graded alone, under the usual limits
# Any of these means that the allow-list will refuse: no batch need look at the program.
UNLIKELY = (
    "import re", "import math", "import col", "import fun", "import heap", "from typing", "from col", "while ",
    "\n    for ", "\n        for ", "try:", "with ", "yield", "global ", "async ", "__class__", "__import__", "eval(",
    "exec(", "getattr", "setattr", "@",
)  # fmt: skip

Settled = tuple[int, Verdict, bool]


@dataclass(frozen=True, slots=True)
class Job:
    """Submissions by their indices; alone, or all in one process."""

    indices: list[int]
    alone: bool

    def start(self, worker: Worker, submissions: Sequence[Submission], limits: Limits) -> None:
        """Hand it to a worker."""
        if not self.alone:
            request = batch_request([submissions[index] for index in self.indices])
            seconds = min(BATCH_SECONDS, limits.wall_seconds)
            worker.start("many", request, seconds, output=False, marker=False)
            return
        submission = submissions[self.indices[0]]
        request = {
            "setup": submission.setup,
            "program": submission.program,
            "calls": [case.call for case in submission.cases],
            "mode": submission.mode.value,
        }
        output, marker = submission.mode is Mode.STDOUT_MARKER, submission.mode is Mode.FILE_MARKER
        worker.start("one", request, limits.wall_seconds, output=output, marker=marker)

    def verdicts(
        self, submissions: Sequence[Submission], reply: dict[str, Any], answer: bytes, output: bytes, limits: Limits
    ) -> tuple[list[Settled], list["Job"]]:
        """The verdicts that came of it, each with whether it will last; and the jobs that are left to do."""
        if self.alone:
            index = self.indices[0]
            ended = _ended(reply, answer, output, limits)
            verdict = judge(submissions[index], ended, limits)
            return [(index, verdict, not ended.timed_out)], []
        settled, alone = [], []
        frames, _ = frames_of(answer)
        lines = [frame[0] for frame in frames][: len(self.indices)]
        for index, line in zip(self.indices, lines, strict=False):
            result = _ended_in_batch(line)
            if result is None:
                alone.append(Job([index], alone=True))
            else:
                settled.append((index, judge(submissions[index], result, limits), True))
        rest = self.indices[len(lines) :]  # the batch died over the first of these
        if rest:
            alone.append(Job(rest[:1], alone=True))
        return settled, [*alone, *([Job(rest[1:], alone=False)] if rest[1:] else [])]


def batches(submissions: Sequence[Submission], small: list[int], workers: int) -> Iterator[Job]:
    """The small ones in batches that keep every worker busy."""
    size = min(LARGEST_BATCH, max(SMALLEST_BATCH, math.ceil(len(small) / workers)))
    for start in range(0, len(small), size):
        yield Job(small[start : start + size], alone=False)


def may_be_harmless(submission: Submission) -> bool:
    """Whether it is worth trying a submission in a batch. What decides is the allow-list, in the batch's process."""
    program = submission.program
    return len(program) <= SIZE and program.isascii() and not any(word in program for word in UNLIKELY)


def batch_request(submissions: Sequence[Submission]) -> dict[str, Any]:
    """A batch as it is sent: each setup and each list of calls once."""
    setups: dict[str, int] = {}
    calls: dict[int, tuple[int, list[str]]] = {}
    programs = []
    for submission in submissions:
        setup = setups.setdefault(submission.setup, len(setups))
        known = calls.get(id(submission.cases))
        if known is None:
            known = calls[id(submission.cases)] = len(calls), [case.call for case in submission.cases]
        programs.append([submission.program, setup, known[0], submission.mode.value])
    return {"setups": list(setups), "calls": [texts for _, texts in calls.values()], "programs": programs}


def _ended(reply: dict[str, Any], answer: bytes, output: bytes, limits: Limits) -> Ended:
    frames, garbled = frames_of(answer)
    return Ended(
        frames=frames,
        garbled=garbled or len(answer) > limits.answer_kib << 10,
        status=reply["status"],
        timed_out=reply["timed_out"],
        cpu_seconds=reply["cpu"],
        printed=output.decode("utf-8", "replace"),
        marker_file=reply.get("marker"),
    )


def _ended_in_batch(line: Any) -> Ended | None:
    if type(line) is not list or len(line) != 4:
        return None
    frames, exit_code, printed, files = line
    if (type(frames), type(printed), type(files)) != (list, str, dict) or not (
        exit_code is None or type(exit_code) is int
    ):
        return None
    marker = files.get(MARKER_FILE)
    status = END if exit_code is None else exit_code
    return Ended(frames=frames, status=status, printed=printed, marker_file=None if marker is None else marker.strip())
