"""The worker: it forks once for each job, waits, kills whatever is left of it, and never sees what was submitted.

The request, the answer and the output are files in memory that the caller's process opened and sent along; only the
fork reads and writes them. So no program and no result is ever in the memory that later forks are copies of.
"""

import builtins
import contextlib
import gc
import importlib
import io
import json
import os
import select
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from . import batch, isolation, libc, runner
from .confinement import FOLDER, Confinement

PRELOADED = (
    "array", "bisect", "cmath", "collections", "collections.abc", "copy", "ctypes", "dataclasses", "datetime",
    "decimal", "enum", "functools", "heapq", "itertools", "json", "math", "operator", "random", "re", "string",
    "threading", "time", "types", "typing", "zlib",
)  # fmt: skip


class Worker:
    """The state of a worker that is ready to fork."""

    def __init__(self, control: socket.socket, settings: dict[str, Any], own_processes: int) -> None:
        self.control = control
        self.isolated: bool = settings["isolated"]
        self.folder: str = FOLDER if self.isolated else settings["folder"]
        self.folder_mib = int(settings["limits"]["folder_mib"])
        identity = isolation.SUBMITTER if self.isolated and settings["many_users"] else None
        self.confinement = Confinement(settings["limits"], self.isolated, identity)
        self._own_processes = own_processes

    def serve(self) -> None:
        """Do jobs until the caller's process closes the control socket, or is gone."""
        if self.isolated:
            isolation.mount_folder(FOLDER, self.folder_mib)
        self.confinement.prepare()
        self.control.send(b'{"ready": true}')
        while True:
            message, fds, _, _ = socket.recv_fds(self.control, 4096, 4)
            if not message:
                self._end()
            self._job(json.loads(message), fds)

    def _job(self, job: dict[str, Any], fds: list[int]) -> None:
        child = self._fork(job["kind"], fds)
        for fd in fds:
            os.close(fd)
        timed_out = not self._wait(child, job["wall_seconds"])
        self._kill(child)
        _, status, usage = os.wait4(child, 0)  # for process 1 of a namespace: when everything in it is gone
        if not self.isolated:
            self._kill_group(child)
        reply = {
            "status": os.waitstatus_to_exitcode(status),
            "timed_out": timed_out,
            "cpu": usage.ru_utime + usage.ru_stime,
        }
        marker = self._marker(job["marker_file"]) if job["marker_file"] else []
        self._empty_folder()
        socket.send_fds(self.control, [json.dumps(reply).encode()], marker)
        for fd in marker:
            os.close(fd)

    def _fork(self, kind: str, fds: list[int]) -> int:
        if self.isolated:
            libc.setns(self._own_processes, libc.CLONE_NEWPID)
            libc.unshare(libc.CLONE_NEWPID)
        child = os.fork()
        if child == 0:
            try:
                self._become(kind, fds)
            finally:
                os._exit(1)
        return child

    def _become(self, kind: str, fds: list[int]) -> None:
        """In the fork: read the request, give up everything else, and run it."""
        request = json.loads(_contents(fds[0]))
        os.chdir(self.folder)
        self.confinement.enter(fds[1], fds[2] if len(fds) > 2 else -1)
        {"one": runner.run, "many": batch.run}[kind](request)

    def _wait(self, child: int, seconds: float) -> bool:
        """Whether the child ends in time; if the caller's process goes away meanwhile, everything ends."""
        process = os.pidfd_open(child)
        try:
            poll = select.poll()
            poll.register(process, select.POLLIN)
            poll.register(self.control, select.POLLHUP | select.POLLRDHUP)
            events = dict(poll.poll(seconds * 1000))
        finally:
            os.close(process)
        if self.control.fileno() in events:
            self._kill(child)
            self._kill_group(child)
            self._end()
        return process in events

    def _kill(self, child: int) -> None:
        os.kill(child, signal.SIGKILL)  # not yet waited for, so the number is still this child's

    def _kill_group(self, child: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)

    def _marker(self, name: str) -> list[int]:
        """The marker file, open for the caller's process to look at; none if there is none, or if it is a link."""
        try:
            return [os.open(f"{self.folder}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)]
        except OSError:
            return []

    def _empty_folder(self) -> None:
        if self.isolated:
            isolation.fresh_folder(self.folder_mib)
            return
        for path in Path(self.folder).iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()

    def _end(self) -> None:
        os._exit(0)  # of process 1: the kernel kills the rest of its namespace


def _contents(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    return os.pread(fd, size, 0)


def _set_out() -> None:
    """What a program finds: the modules that solutions import, `exit` and `quit`, and no trace of the environment."""
    quitter = importlib.import_module("_sitebuiltins").Quitter
    for name in PRELOADED:
        importlib.import_module(name)
    builtins.__dict__.update(exit=quitter("exit", "Ctrl-D"), quit=quitter("quit", "Ctrl-D"))
    os.environ.clear()
    sys.argv[:] = ["solution.py"]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")


def main() -> None:
    """Set up by the orders of the caller's process, then serve. The arguments: a descriptor, and settings as JSON."""
    control = socket.socket(fileno=int(sys.argv[1]))
    settings = json.loads(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _set_out()
    own_processes = -1
    try:
        if settings["isolated"]:
            isolation.leave_users()
            control.send(b'{"unshared": true}')
            settings.update(json.loads(control.recv(4096)))  # who is who has been written: many_users
            own_processes = isolation.isolate(settings["many_users"])
        worker = Worker(control, settings, own_processes)
    except (OSError, ValueError) as error:
        control.send(json.dumps({"failed": str(error)}).encode())
        return
    gc.collect()
    gc.freeze()
    worker.serve()
