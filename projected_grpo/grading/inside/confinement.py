"""What a fork gives up before it runs anything: resources without bound, privileges, and its parent's descriptors."""

import os
import resource
import signal

from . import libc
from .seccomp import BY_ALL, KEPT_BY_THE_WORKER, Filter

ANSWER_FD = 3  # where a fork writes its answer; 0, 1 and 2 are an empty input, the captured output, and nowhere
FOLDER = "/work"


class Confinement:
    """The limits of one worker's forks.

    Args:
        limits: Numbers by the names of `projected_grpo.grading.limits.Limits`.
        isolated: Whether the worker is in namespaces of its own; without, limits and the filter are all there is.
        identity: The user and group to become, or None to stay who one is.
    """

    def __init__(self, limits: dict[str, float], isolated: bool, identity: int | None) -> None:
        self.isolated = isolated
        self.identity = identity
        self._filter = Filter(KEPT_BY_THE_WORKER)
        mebibyte = 1 << 20
        self._limits = {
            resource.RLIMIT_CPU: int(limits["cpu_seconds"]),
            resource.RLIMIT_AS: int(limits["memory_mib"]) * mebibyte,
            resource.RLIMIT_FSIZE: int(limits["file_mib"]) * mebibyte,
            resource.RLIMIT_NOFILE: int(limits["open_files"]),
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_MEMLOCK: 0,
            resource.RLIMIT_MSGQUEUE: 0,
        }
        if isolated:  # without a user namespace this counts every process that the user has, not the submission's
            self._limits[resource.RLIMIT_NPROC] = int(limits["processes"])

    def prepare(self) -> None:
        """In the worker, once: give up for good what neither it nor any fork needs."""
        if self.isolated:
            libc.forget_capabilities()
        Filter(BY_ALL).install()

    def enter(self, answer: int, output: int) -> None:
        """Become a process that may run hostile code. `output` is -1 where nobody reads it."""
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        self._settle_descriptors(answer, output)
        for kind, value in self._limits.items():
            _, most = resource.getrlimit(kind)
            bound = value if most == resource.RLIM_INFINITY else min(value, most)
            resource.setrlimit(kind, (bound, bound))
        if self.isolated:
            self._lose_privileges()
        self._filter.install()

    def _settle_descriptors(self, answer: int, output: int) -> None:
        high = [os.dup(fd) if fd >= 0 else -1 for fd in (answer, output)]  # so that no dup2 overwrites the other's
        if high[1] >= 0:
            os.dup2(high[1], 1)
        os.dup2(high[0], ANSWER_FD, inheritable=False)
        os.closerange(ANSWER_FD + 1, 1024)

    def _lose_privileges(self) -> None:
        if self.identity is not None:
            os.setgroups([])
            os.setresgid(self.identity, self.identity, self.identity)
            os.setresuid(self.identity, self.identity, self.identity)
            libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)  # changing the user clears it
        libc.drop_capabilities()
