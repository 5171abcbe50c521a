"""Filters of system calls: those that no solution needs, and that reach the kernel's less trodden parts, are refused.

They are a second fence. Namespaces and lost privileges already keep a submission in; these also close sockets,
execution of files, memory that no limit counts (memfd, System V), and what most kernel exploits begin with. The worker
puts most of them in force on itself, once; what it needs for its next fork, a fork gives up when it is its turn, since
installing a long filter takes as long as a short program.
"""

import ctypes
import os
import struct

from . import libc

# name: number on x86_64, on aarch64; None where the architecture has no such call
DENIED: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_setup": (206, 0),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "fanotify_init": (300, 262),
    "inotify_init1": (294, 26),
    "personality": (135, 92),
    "quotactl": (179, 60),
    "syslog": (103, 116),
    "vmsplice": (278, 75),
    "setpriority": (141, 140),
    "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274),
    "modify_ldt": (154, None),
    "vfork": (58, None),
}
KEPT_BY_THE_WORKER = frozenset({"mount", "umount2", "unshare", "setns", "pidfd_open"})
BY_ALL = frozenset(DENIED) - KEPT_BY_THE_WORKER

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3 = 435
_X32 = 0x40000000  # calls of the x32 ABI are numbered from here on, and would slip past the table
_NEW_NAMESPACES = 0x7E020000  # every CLONE_NEW* flag that clone takes

_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_LOAD, _JEQ, _JGE, _JSET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06


def instructions(machine: str, names: frozenset[str]) -> list[tuple[int, int, int, int]]:
    """A filter that refuses the calls of these names, as (code, jump if true, jump if false, constant).

    It is empty for a machine whose numbers aren't known.
    """
    if machine not in _ARCHITECTURES:
        return []
    audit, column = _ARCHITECTURES[machine]
    program = [(_LOAD, 0, 0, 4), (_JEQ, 1, 0, audit), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    if machine == "x86_64":
        program += [(_JGE, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    for name in sorted(names):
        number = DENIED[name][column]
        if number is not None:
            program += [(_JEQ, 0, 1, number), (_RETURN, 0, 0, _ERRNO | _EPERM)]
    # The flags of clone3 lie in memory, where no filter sees them; libc falls back to clone.
    program += [(_JEQ, 0, 1, _CLONE3), (_RETURN, 0, 0, _ERRNO | _ENOSYS)]
    program += [(_JEQ, 0, 3, _CLONE[machine]), (_LOAD, 0, 0, 16)]
    program += [(_JSET, 0, 1, _NEW_NAMESPACES), (_RETURN, 0, 0, _ERRNO | _EPERM)]
    return [*program, (_RETURN, 0, 0, _ALLOW)]


class Filter:
    """A filter as the kernel reads it, built once and kept where it is."""

    def __init__(self, names: frozenset[str]) -> None:
        steps = instructions(os.uname().machine, names)
        code = b"".join(struct.pack("HBBI", *step) for step in steps)
        self._code = ctypes.create_string_buffer(code, len(code)) if steps else None
        address = ctypes.addressof(self._code) if self._code is not None else 0
        self._program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(steps), address))

    def install(self) -> None:
        """Put it in force on this process and all that it will start, where the numbers of the machine are known."""
        libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
        if self._code is not None:
            libc.seccomp(ctypes.addressof(self._program))
