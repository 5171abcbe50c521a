"""A worker as the grader's process sees it: started by a fresh interpreter, given one job at a time, ended for good."""

import contextlib
import json
import os
import select
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from projected_grpo.environment.modes import MARKER_FILE
from projected_grpo.grading.errors import IsolationUnavailableError, WorkerError
from projected_grpo.grading.inside.isolation import SUBMITTER
from projected_grpo.grading.limits import Limits

# -I but for the environment, which holds the seed of hashes: a set is walked in the same order in every run.
OPTIONS = ("-S", "-s", "-P", "-B", "-X", "utf8")
BOOT = "import sys; sys.path.append(sys.argv.pop()); from inside.worker import main; sys.path.pop(); main()"
MARKER_BYTES = 4096  # how big a marker file may be
SECONDS_TO_START = 60.0
SECONDS_TO_END = 5.0
SECONDS_OF_GRACE = 10.0  # past the wall limit, until a worker is taken for stuck
USERS = 1_879_048_192  # where host users for submissions begin: past what systems assign, 0x70000000
CAP_SETGID, CAP_SETUID = 6, 7


class Worker:
    """One worker process and what it forks; started by the constructor.

    Raises:
        IsolationUnavailableError: Namespaces can't be had, and `unsafe` is False.
    """

    def __init__(self, limits: Limits, unsafe: bool = False) -> None:
        self.limits = limits
        self._answer = self._output = self._marker = -1
        self._folder = tempfile.mkdtemp(prefix="grading-") if unsafe else None
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        settings = {"limits": asdict(limits), "isolated": not unsafe, "folder": self._folder}
        try:
            self._process = subprocess.Popen(
                [_interpreter(), *OPTIONS, "-c", BOOT, str(theirs.fileno()), json.dumps(settings), _folder_of_inside()],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the grader, which ends its workers
                cwd="/",
            )
        except BaseException:
            self._control.close()
            raise
        finally:
            theirs.close()
        try:
            self._meet(unsafe)
        except BaseException:
            self.close()
            raise

    def _meet(self, unsafe: bool) -> None:
        reply = self._receive(SECONDS_TO_START)
        if "unshared" in reply:
            many = _write_maps(self._process.pid)
            self._control.send(json.dumps({"many_users": many}).encode())
            reply = self._receive(SECONDS_TO_START)
        if "ready" in reply:
            return
        cause = str(reply.get("failed", "the worker ended as soon as it was started"))
        if unsafe:
            raise WorkerError(f"No grading worker can be started: {cause}.")
        raise IsolationUnavailableError(
            f"This system lets no process have namespaces of its own ({cause}): allow user namespaces, or accept that "
            f"hostile programs run without isolation by --unsafe-grading (unsafe=True)."
        )

    def fileno(self) -> int:
        """What becomes readable when a job is done, or the worker is dead."""
        return self._control.fileno()

    def start(
        self, kind: str, request: dict[str, Any], wall_seconds: int | float, *, output: bool, marker: bool
    ) -> None:
        """Hand over a job. `output` and `marker` say whether what is printed, and the marker file, will be looked at.

        Raises:
            OSError: The worker is dead.
        """
        job = {"kind": kind, "wall_seconds": wall_seconds, "marker_file": MARKER_FILE if marker else None}
        program = os.memfd_create("request", os.MFD_CLOEXEC)
        try:
            _write(program, json.dumps(request).encode())
            self._answer = os.memfd_create("answer", os.MFD_CLOEXEC)
            self._output = os.memfd_create("output", os.MFD_CLOEXEC) if output else -1
            fds = [program, self._answer, *([self._output] if output else [])]
            socket.send_fds(self._control, [json.dumps(job).encode()], fds)
        except BaseException:
            self._close_files()
            raise
        finally:
            os.close(program)

    def finish(self) -> tuple[dict[str, Any], bytes, bytes] | None:
        """How the job's process ended, its answer, and what it printed; None if the worker is dead.

        Nothing of the submission runs any more when this is read.
        """
        try:
            reply = self._receive(0.0)
            if self._marker >= 0:
                reply["marker"] = _marker_text(self._marker)
            answer = _read(self._answer, self.limits.answer_kib << 10)
            output = _read(self._output, self.limits.output_kib << 10) if self._output >= 0 else b""
        finally:
            self._close_files()
        return (reply, answer, output) if "status" in reply else None

    def close(self) -> None:
        """End the worker and everything in its namespaces; when this returns, all of it is gone."""
        self._control.close()  # which the worker takes for its order to end
        self._close_files()
        try:
            self._process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _receive(self, seconds: float) -> dict[str, Any]:
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return {}
        try:
            message, fds, _, _ = socket.recv_fds(self._control, 65536, 1)
        except ConnectionError:
            return {}
        self._marker = fds[0] if fds else -1
        return dict(json.loads(message)) if message else {}

    def _close_files(self) -> None:
        for fd in (self._answer, self._output, self._marker):
            if fd >= 0:
                os.close(fd)
        self._answer = self._output = self._marker = -1


def _marker_text(fd: int) -> str | None:
    """What a small, regular file holds, stripped; None for anything else."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_size > MARKER_BYTES:
        return None
    return os.pread(fd, MARKER_BYTES, 0).decode("utf-8", "replace").strip()


def _interpreter() -> str:
    """The Python that a virtual environment was made from: nothing of the environment is needed."""
    return str(getattr(sys, "_base_executable", None) or sys.executable)


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return {"PYTHONHASHSEED": "0", **kept}


def _folder_of_inside() -> str:
    return str(Path(__file__).parent)


def _write_maps(pid: int) -> bool:
    """Say who is who in the worker's user namespace; whether submissions can be a user apart from the worker.

    With the right to, both become users of the host that own nothing. Without, both are the user who is grading.
    """
    proc = Path(f"/proc/{pid}")
    if _may_set_users():
        first = USERS + 2 * (pid % 100_000)
        with contextlib.suppress(OSError):
            lines = f"0 {first} 1\n{SUBMITTER} {first + 1} 1\n"
            (proc / "gid_map").write_text(lines)
            (proc / "uid_map").write_text(lines)
            return True
    with contextlib.suppress(OSError):  # what is missing is noticed at the first mount
        (proc / "setgroups").write_text("deny")
        (proc / "gid_map").write_text(f"{SUBMITTER} {os.getegid()} 1\n")
        (proc / "uid_map").write_text(f"{SUBMITTER} {os.geteuid()} 1\n")
    return False


def _may_set_users() -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
            return bool(effective >> CAP_SETUID & 1 and effective >> CAP_SETGID & 1)
    return False


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _read(fd: int, most: int) -> bytes:
    """Up to `most` bytes from the start; one more, if there are more."""
    return os.pread(fd, min(os.fstat(fd).st_size, most + 1), 0)
