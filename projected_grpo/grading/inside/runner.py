"""One program and its calls, evaluated in order in one process; what comes of it is written as frames.

    ["loaded"]                          or ["failed", why]: then nothing but the end follows
    ["flaw", true]                      only under a mode whose flaw is asked of the program itself
    ["value", encoded]                  or ["other", what], ["raised", why]: one for each call, in order
    ["end"]

Under `eq_override` each frame of a call but "raised" has a last element: whether the result said that it equals a value
that nothing equals. The frames are written by a process that the program controls, so the reader takes them for the
program's own word. What makes them worth reading is that the program was never told which values are right.
"""

import json
import os
import random
import re
import sys
import types
from collections.abc import Callable
from typing import Any

from .confinement import ANSWER_FD
from .encoding import NotPlainError, encode

END = 86  # the exit code of a process that ran to its end; an end that is the program's own work has another
REASON = 200  # characters of an exception that are kept

Frame = list[Any]


class Nothing:
    """What no value equals, unless it says that it equals anything."""

    __slots__ = ()


def run(request: dict[str, Any]) -> None:
    """Evaluate a request and end the process."""
    random.seed(0)  # a fork has dice of its own otherwise, and a verdict would not be the same twice
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    namespace = module.__dict__

    def load() -> None:
        exec(compile(request["setup"], "setup", "exec", dont_inherit=True), namespace)
        exec(compile(request["program"], "solution.py", "exec", dont_inherit=True), namespace)

    try:
        evaluate(load, namespace, request["calls"], request["mode"], send, describe)
    except SystemExit as error:
        leave(exit_code(error.code))
    leave(END)


def evaluate(
    load: Callable[[], None],
    namespace: dict[str, Any],
    calls: list[Any],
    mode: str,
    send: Callable[[Frame], None],
    describe: Callable[[BaseException], str],
) -> None:
    """Load a program and send its frames. A SystemExit, wherever it is raised, ends the evaluation."""
    try:
        load()
    except SystemExit:
        raise
    except BaseException as error:
        send(["failed", describe(error)])
        send(["end"])
        return
    send(["loaded"])
    if mode in PROBES:  # before the calls, so that one that never returns can't hide that the flaw is there
        send(["flaw", probe(PROBES[mode], namespace, describe)])
    for call in calls:
        send(result_of(call, namespace, mode, describe))
    send(["end"])


def probe(
    flaw: Callable[[dict[str, Any]], bool], namespace: dict[str, Any], describe: Callable[[BaseException], str]
) -> bool:
    """Whether the flaw is there; an exception says that it isn't."""
    try:
        return flaw(namespace)
    except SystemExit:
        raise
    except BaseException as error:
        describe(error)
        return False


def result_of(call: Any, namespace: dict[str, Any], mode: str, describe: Callable[[BaseException], str]) -> Frame:
    """The frame of one call."""
    try:
        value = eval(call, namespace)
        try:
            frame = ["value", encode(value)]
        except NotPlainError as error:
            frame = ["other", str(error)]
        return [*frame, equals_nothing(value)] if mode == "eq_override" else frame
    except SystemExit:
        raise
    except BaseException as error:
        return ["raised", describe(error)]


def equals_nothing(value: Any) -> bool:
    """Whether a value says that it equals a value that nothing equals."""
    try:
        return bool(value == Nothing())
    except SystemExit:
        raise
    except BaseException:
        return False


def _run_tests(namespace: dict[str, Any]) -> bool:
    namespace["Solution"]().run_tests()
    return True


def _sentinel(namespace: dict[str, Any]) -> bool:
    return namespace["Solution"]().valid is True


PROBES: dict[str, Callable[[dict[str, Any]], bool]] = {"run_tests": _run_tests, "sentinel": _sentinel}


def describe(error: BaseException) -> str:
    """An exception in one short line that is the same in every run."""
    if isinstance(error, MemoryError):
        return "ran out of memory"
    name = type(error).__name__
    try:
        text = f"{name}: {error}"[: 2 * REASON]
    except BaseException:  # a __str__ of the program's own
        text = name
    return "raised " + re.sub(r"0x[0-9a-f]+", "0x...", " ".join(text.split()))[:REASON].rstrip(": ")


def send(frame: Frame) -> None:
    """Write one frame where the grader reads."""
    line = json.dumps(frame).encode() + b"\n"
    while line:
        line = line[os.write(ANSWER_FD, line) :]


def exit_code(code: object) -> int:
    """The code that Python ends with for what a SystemExit holds."""
    if code is None:
        return 0
    return code & 0xFF if isinstance(code, int) else 1


def leave(code: int) -> None:
    """End the process at once, with what was printed so far written."""
    try:
        sys.stdout.flush()
    finally:
        os._exit(code)
