"""Calls that may end the process which makes them, made in a forked one.

A grader that runs a submission in its own process ends with it: os._exit raises nothing that could be caught. In a
child of its own that is seen, and told, instead of ending the suite.
"""

import fcntl
import json
import os
import select
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

PIPE = 900  # descriptors end at 1024 on most systems
END = "\n"  # of an answer; JSON has none of its own


@dataclass(frozen=True)
class Ended:
    """The call has ended its process, or was still at it when its time was up."""

    how: str


class RaisedError(Exception):
    """The call raised, in its own process."""


def guarded(call: Callable[[], Any], *, seconds: float) -> Any:
    """What `call` returns, which JSON must hold; Ended where its process did not come to an answer.

    The process has no open file, and works in a folder of its own, which is gone afterwards.

    Raises RaisedError if the call raised an Exception. SystemExit ends a process like os._exit, and is told as such.
    """
    with tempfile.TemporaryDirectory(prefix="guarded-", ignore_cleanup_errors=True) as folder:
        return _guarded(call, seconds, folder)


def _guarded(call: Callable[[], Any], seconds: float, folder: str) -> Any:
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, none of which is asked to run
        child = os.fork()
    if child == 0:
        os.close(reading)
        _answer(call, writing, folder)
    os.close(writing)
    try:
        text, status = _told(reading, child, time.monotonic() + seconds)
    finally:
        os.close(reading)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)
    if text.endswith(END):
        try:
            said = dict(json.loads(text))
        except (ValueError, TypeError):
            return Ended("was written over by something else than its answer")
        if "raised" in said:
            raise RaisedError(said["raised"])
        return Ended(said["ended"]) if "ended" in said else said["returned"]
    if status is None:
        os.waitpid(child, 0)
        return Ended(f"gave no answer in {seconds:g} s")
    code = os.waitstatus_to_exitcode(status)
    return Ended(f"ended with exit code {code}" if code >= 0 else f"ended by signal {-code}")


def _answer(call: Callable[[], Any], writing: int, folder: str) -> None:
    """What the child does; it never returns.

    It has no descriptor of its parent's but the pipe, and that far above those that a program may try: a grader which
    runs a submission in its own process lets it write into whatever is open.
    """
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        pipe = fcntl.fcntl(writing, fcntl.F_DUPFD_CLOEXEC, PIPE)
        os.closerange(3, PIPE)
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        try:
            said = json.dumps({"returned": call()})
        except SystemExit as error:
            said = json.dumps({"ended": f"raised SystemExit({error.code!r})"})
        except BaseException as error:
            said = json.dumps({"raised": f"{type(error).__name__}: {error}"})
        os.write(pipe, (said + END).encode())
    finally:
        os._exit(0)


def _told(reading: int, child: int, until: float) -> tuple[str, int | None]:
    """What the child wrote, and its status once it has ended.

    Processes that it has left behind may hold the pipe open, so its end is not waited for.
    """
    told, status = b"", None
    while time.monotonic() < until:
        readable = bool(select.select([reading], [], [], 0.0 if status is not None else 0.05)[0])
        piece = os.read(reading, 1 << 16) if readable else b""
        told += piece
        if told.endswith(END.encode()):
            break
        if status is not None and not piece:
            return told.decode(errors="replace"), status
        if status is None:
            ended, code = os.waitpid(child, os.WNOHANG)
            status = code if ended else None
    if status is None and told.endswith(END.encode()):
        _, status = os.waitpid(child, 0)
    return told.decode(errors="replace"), status
