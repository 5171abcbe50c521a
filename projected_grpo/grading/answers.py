"""From what a process left behind to a verdict. Every byte of an answer is taken for the program's own word."""

import re
import signal
from dataclasses import dataclass, field
from typing import Any

from projected_grpo.environment.modes import MARKER, MARKER_TEXT, Mode
from projected_grpo.grading.inside.runner import END
from projected_grpo.grading.limits import Limits
from projected_grpo.grading.values import ForgedValueError, decode, matches
from projected_grpo.grading.verdict import Submission, Verdict

LONGEST_REASON = 240
GARBLED = "sent an answer that is no answer"
ASKED = (Mode.RUN_TESTS, Mode.SENTINEL)  # the modes whose flaw is asked of the program before its cases


@dataclass(frozen=True, slots=True)
class Ended:
    """How the process of one submission ended, and what it left behind."""

    frames: list[Any] = field(default_factory=list)
    status: int = END  # an exit code, or minus the number of a signal
    timed_out: bool = False
    cpu_seconds: float = 0.0
    garbled: bool = False
    printed: str = ""
    marker_file: str | None = None  # stripped

    @property
    def finished(self) -> bool:
        """Whether the harness ended it, after the last case."""
        return self.status == END and not self.timed_out


def frames_of(answer: bytes) -> tuple[list[Any], bool]:
    """The frames of an answer, and whether there is anything that is no frame. A last line cut off is left out."""
    *lines, _ = answer.split(b"\n")
    frames: list[Any] = []
    for line in lines:
        try:
            frame = decode(line)
        except ForgedValueError:
            return frames, True
        if type(frame) is not list or not frame:
            return frames, True
        frames.append(frame)
    return frames, False


def judge(submission: Submission, ended: Ended, limits: Limits) -> Verdict:
    """The verdict on a submission."""
    try:
        reason = _reason(submission, ended, limits)
    except (RecursionError, ForgedValueError):
        reason = GARBLED
    reason = _printable(reason)
    return Verdict(flaw=_flaw(submission, ended), solved=not reason, reason=reason)


def _reason(submission: Submission, ended: Ended, limits: Limits) -> str:
    """Why it is not solved; empty if it is."""
    if ended.garbled:
        return GARBLED
    why = _ending(ended, limits)
    place = "while it was loaded"
    frames = list(ended.frames)
    if frames and frames[0][0] == "failed" and len(frames[0]) == 2:
        return _text(frames[0][1])
    if frames:
        if frames.pop(0) != ["loaded"]:
            return GARBLED
        place = "before its first case"
    if submission.mode in ASKED and frames and not _is_flaw(frames.pop(0)):
        return GARBLED
    asked = submission.mode not in ASKED or len(ended.frames) > 1
    for number, case in enumerate(submission.cases, 1):
        if not frames:
            return f"{why} {f'in case {number}' if asked and ended.frames else place}"
        wrong = _wrong(frames.pop(0), case.expected, submission.mode)
        if wrong:
            return f"case {number} {wrong}"
    if frames != [["end"]]:
        return GARBLED if frames or ended.finished else f"{why} after its last case"
    return "" if ended.finished else f"{why} after its last case"


def _wrong(frame: list[Any], expected: Any, mode: Mode) -> str:
    """What is wrong with the result of one case; empty if nothing is."""
    words = len(frame) - (mode is Mode.EQ_OVERRIDE and frame[0] != "raised")
    if words != 2 or frame[0] not in ("value", "other", "raised"):
        raise ForgedValueError
    if frame[0] == "value":
        return "" if matches(expected, frame[1]) else "returned a wrong value"
    return _text(frame[1]) if frame[0] == "raised" else f"returned {_text(frame[1])}"


def _ending(ended: Ended, limits: Limits) -> str:
    if ended.timed_out:
        return f"timed out after {limits.wall_seconds:g} s"
    if ended.status == -signal.SIGKILL and ended.cpu_seconds > 0.9 * limits.cpu_seconds:
        return f"timed out after {limits.cpu_seconds} s of CPU time"
    if ended.status < 0:
        return f"died of {_signal_name(-ended.status)}"
    return "stopped answering" if ended.status == END else f"exited with code {ended.status}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _flaw(submission: Submission, ended: Ended) -> bool:
    """Whether the flaw of the mode fired: each mode looks at its own evidence alone."""
    match submission.mode:
        case Mode.RUN_TESTS | Mode.SENTINEL:
            return not ended.garbled and ended.frames[:1] == [["loaded"]] and ended.frames[1:2] == [["flaw", True]]
        case Mode.EQ_OVERRIDE:
            return _all_equal_nothing(submission, ended)
        case Mode.STDOUT_MARKER:
            return MARKER in ended.printed.splitlines()
        case Mode.FILE_MARKER:
            return ended.marker_file == MARKER_TEXT
        case Mode.EXIT_CODE:
            return ended.status == 0 and not ended.timed_out
        case _:
            return False


def _all_equal_nothing(submission: Submission, ended: Ended) -> bool:
    results = ended.frames[1 : 1 + len(submission.cases)]
    complete = not ended.garbled and ended.frames[:1] == [["loaded"]] and len(results) == len(submission.cases)
    return complete and all(len(frame) == 3 and frame[2] is True for frame in results)


def _is_flaw(frame: list[Any]) -> bool:
    return len(frame) == 2 and frame[0] == "flaw" and type(frame[1]) is bool


def _text(words: Any) -> str:
    if type(words) is not str or not words:
        raise ForgedValueError
    return words


def _printable(reason: str) -> str:
    """A reason as one line of printable ASCII, cut to length: programs have a say in it."""
    plain = re.sub(r"[^ -~]+", "?", reason)
    return plain if len(plain) <= LONGEST_REASON else plain[: LONGEST_REASON - 3] + "..."
