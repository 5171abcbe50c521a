"""The namespaces of a worker: its own users, processes, network, names, System V objects, and a root with little in it.

The new root holds the standard library, read-only and without site-packages, and an empty working folder in memory.
There is no /proc, no /dev, no program that could be executed, and no path to anything of the caller's.
"""

import os
import signal
import sysconfig
import tempfile
from pathlib import Path

from . import libc
from .confinement import FOLDER

NAMESPACES = (
    libc.CLONE_NEWNS | libc.CLONE_NEWNET | libc.CLONE_NEWIPC | libc.CLONE_NEWUTS | libc.CLONE_NEWCGROUP
    | libc.CLONE_NEWPID
)  # fmt: skip
SUBMITTER = 1  # the user that submissions run as, where more than one can be had
HIDDEN = ("site-packages", "dist-packages")  # folders of the library that are other people's
KEPT = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC  # flags that a namespace of a user may not take off a mount


def leave_users() -> None:
    """Enter a user namespace; who is who in it is for the caller's process to write (see `worker.serve`)."""
    libc.unshare(libc.CLONE_NEWUSER)


def isolate(many_users: bool) -> int:
    """Enter the other namespaces, fork into the new process namespace, and go on there as process 1.

    Returns a descriptor of that namespace, from which forks into further ones are made. The process that calls this
    never returns: it waits for process 1, and ends when that one does.
    """
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    libc.unshare(NAMESPACES)
    library = [os.open(path, os.O_PATH | os.O_DIRECTORY) for path in library_folders()]
    if many_users:  # the library is opened before: for the new user, the way to it may be closed
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    child = os.fork()
    if child:
        os.closerange(0, 1024)  # the caller must notice when process 1 ends
        os.waitpid(child, 0)
        os._exit(0)
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
    own = os.open("/proc/self/ns/pid", os.O_RDONLY)
    _forbid_namespaces()
    _build_root(library)
    return own


def library_folders() -> list[str]:
    """Where the standard library lies."""
    paths = {os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
    return sorted(paths)


def fresh_folder(mebibytes: int) -> None:
    """An empty working folder in the place of the last one."""
    libc.umount(FOLDER)
    mount_folder(FOLDER, mebibytes)


def mount_folder(path: str, mebibytes: int) -> None:
    """A working folder in memory, owned by the worker: a submission can write in it, and not change or replace it."""
    flags = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC
    libc.mount("tmpfs", path, "tmpfs", flags, f"size={mebibytes}m,nr_inodes=1024,mode=1777")


def _forbid_namespaces() -> None:
    for kind in ("user", "mnt", "net", "ipc", "uts", "cgroup"):
        try:
            Path(f"/proc/sys/user/max_{kind}_namespaces").write_text("0")
        except OSError:  # /proc is read-only in some containers; the filter of system calls forbids it anyway
            return


def _build_root(library: list[int]) -> None:
    libc.mount("none", "/", "none", libc.MS_REC | libc.MS_PRIVATE)
    root = tempfile.gettempdir()
    paths = [str(Path(f"/proc/self/fd/{fd}").readlink()) for fd in library]
    libc.mount("tmpfs", root, "tmpfs", libc.MS_NOSUID | libc.MS_NODEV, "size=1m,mode=755")
    for fd, path in zip(library, paths, strict=True):
        _bind(fd, root + path)
        os.close(fd)
    Path(root + FOLDER).mkdir()
    libc.mount("tmpfs", root + FOLDER, "tmpfs", libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC, "mode=1777")
    flags = libc.MS_REMOUNT | libc.MS_BIND | libc.MS_RDONLY | libc.MS_NOSUID | libc.MS_NODEV
    libc.mount("none", root, "none", flags)
    os.chdir(root)
    libc.pivot_root(".", ".")
    libc.umount(".")  # the old root, which lies over the new one now
    os.chdir(FOLDER)


def _bind(fd: int, target: str) -> None:
    """The folder that is open as `fd`, read-only at `target`, without what was installed into it."""
    Path(target).mkdir(parents=True)
    libc.mount(f"/proc/self/fd/{fd}", target, "none", libc.MS_BIND | libc.MS_REC)
    kept = os.statvfs(target).f_flag & KEPT  # ST_NOSUID and its like have the values of MS_NOSUID and its like
    flags = libc.MS_REMOUNT | libc.MS_BIND | libc.MS_RDONLY | libc.MS_NOSUID | libc.MS_NODEV
    libc.mount("none", target, "none", flags | kept)
    for name in HIDDEN:
        if Path(target, name).is_dir():
            libc.mount("tmpfs", f"{target}/{name}", "tmpfs", libc.MS_RDONLY | libc.MS_NOSUID, "size=4k,mode=555")
