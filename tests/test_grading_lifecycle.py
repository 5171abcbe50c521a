"""Workers: none outlives its grader, one that dies is replaced, and where there is no isolation grading says so."""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from projected_grpo.environment.modes import Mode
from projected_grpo.environment.problem import Case
from projected_grpo.grading import Grader, IsolationUnavailableError, Limits, Submission
from projected_grpo.grading import worker as worker_module
from projected_grpo.grading.worker import Worker

CASES = (Case("Solution().f()", 7),)
RIGHT = "import math\nclass Solution:\n    def f(self): return 7\n"
SLEEPER = "import time\ntime.sleep(99)\n"

SCRIPT = """
import os, sys
sys.modules["projected_grpo"] = package = type(sys)("projected_grpo")  # all but what grading needs is left out
package.__path__ = [{package!r}]
from projected_grpo.environment.modes import Mode
from projected_grpo.environment.problem import Case
from projected_grpo.grading import Grader, IsolationUnavailableError, Submission
from projected_grpo.grading.inside import libc
def graded(program, unsafe=False):
    with Grader(workers=1, unsafe=unsafe) as grader:
        return grader.grade([Submission(program, (Case("Solution().f()", 7),), Mode.NONE)])[0]
RIGHT, SLEEPER = {right!r}, {sleeper!r}
"""


def script(body: str) -> subprocess.Popen[str]:
    package = str(Path(worker_module.__file__).parent.parent)
    head = SCRIPT.format(package=package, right=RIGHT, sleeper=SLEEPER)
    return subprocess.Popen(
        [sys.executable, "-c", head + textwrap.dedent(body)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def output(body: str) -> str:
    process = script(body)
    printed, errors = process.communicate()
    assert process.returncode == 0, errors
    return printed.strip()


@pytest.fixture(autouse=True)
def _isolation() -> None:
    try:
        Worker(Limits()).close()
    except IsolationUnavailableError as error:
        pytest.skip(str(error))


def alive(pid: int) -> bool:
    """Whether a process runs; one that is only waited for doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def family(pid: int) -> list[int]:
    return [pid, *(descendant for child in children(pid) for descendant in family(child))]


def eventually_dead(pids: list[int]) -> bool:
    for _ in range(600):
        if not any(map(alive, pids)):
            return True
        time.sleep(0.05)
    return False


def test_a_grader_starts_nothing_until_it_is_used_and_close_ends_everything() -> None:
    grader = Grader(workers=1)
    assert not grader._workers
    assert grader.grade([Submission(RIGHT, CASES, Mode.NONE)])[0].solved
    pids = family(grader._workers[0]._process.pid)
    assert len(pids) == 2
    grader.close()
    assert not any(map(alive, pids))
    assert grader.grade([Submission(RIGHT + "#", CASES, Mode.NONE)])[0].solved, "it can be used again"
    grader.close()


def test_a_forgotten_grader_ends_its_workers() -> None:
    grader = Grader(workers=1)
    grader.grade([Submission(RIGHT, CASES, Mode.NONE)])
    pids = family(grader._workers[0]._process.pid)
    del grader
    gc.collect()
    assert not any(map(alive, pids))


def test_a_worker_that_dies_is_replaced_and_loses_nothing() -> None:
    with Grader(workers=1) as grader:
        assert grader.grade([Submission(RIGHT, CASES, Mode.NONE)])[0].solved
        os.kill(grader._workers[0]._process.pid, signal.SIGKILL)
        graded = grader.grade([Submission(RIGHT + f"# {n}", CASES, Mode.NONE) for n in range(3)])
        assert all(verdict.solved for verdict in graded)


def test_a_submission_that_takes_its_worker_along_is_graded_as_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    start = Worker.start

    def start_and_die(self: Worker, kind: str, request: dict[str, object], *args: object, **options: object) -> None:
        start(self, kind, request, *args, **options)  # type: ignore[arg-type]
        if "deadly" in str(request):
            self._process.kill()

    monkeypatch.setattr(Worker, "start", start_and_die)
    programs = [RIGHT, RIGHT + "# deadly", RIGHT + "# 2", SLEEPER + "# deadly"]
    with Grader(workers=2) as grader:
        graded = grader.grade([Submission(program, CASES, Mode.NONE) for program in programs])
    assert [verdict.solved for verdict in graded[::2]] == [True, True]
    assert graded[3].reason == "died with the worker that ran it"


def test_a_stuck_worker_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projected_grpo.grading.grader.SECONDS_OF_GRACE", 0.2)
    monkeypatch.setattr(worker_module, "SECONDS_TO_END", 0.2)
    with Grader(workers=1, limits=Limits(wall_seconds=0.3)) as grader:
        grader.grade([Submission(RIGHT, CASES, Mode.NONE)])
        waiting, forking = family(grader._workers[0]._process.pid)
        os.kill(forking, signal.SIGSTOP)
        (verdict,) = grader.grade([Submission(RIGHT + "#", CASES, Mode.NONE)])
        assert verdict.solved
    assert eventually_dead([waiting, forking])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_the_caller(number: signal.Signals) -> None:
    process = script("print('starting', flush=True); graded(SLEEPER)")
    assert process.stdout is not None
    process.stdout.readline()
    for _ in range(600):
        pids = family(process.pid)
        if len(pids) >= 4:  # the caller, the worker's two, and the submission
            break
        time.sleep(0.05)
    process.send_signal(number)
    process.communicate()
    assert eventually_dead(pids)


@pytest.mark.skipif(os.geteuid() != 0, reason="every other test shows it for a user who isn't root")
def test_it_works_for_an_ordinary_user() -> None:
    body = """
    from projected_grpo.grading import worker
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    # This Python may lie where only root can read.
    usable = [path for path in (worker._interpreter(), "/usr/bin/python3") if os.access(path, os.X_OK)]
    worker._interpreter = lambda: usable[0]
    if not usable or not os.access(worker._folder_of_inside(), os.R_OK):
        print("nothing that an ordinary user may run")
    else:
        reads = "import os\\nclass Solution:\\n    f = lambda s: 7 + os.path.exists('/etc/passwd')\\n"
        # Each child sleeps, for one that met the limit as well could answer first, or in between.
        forks = "import os, time\\nwhile True: os.fork() or time.sleep(60)\\n"
        print(graded(RIGHT).solved, graded(reads).solved, graded(forks).reason)
    """
    printed = output(body)
    if printed.startswith("nothing"):
        pytest.skip(printed)
    assert printed == "True True raised BlockingIOError: [Errno 11] Resource temporarily unavailable"


def test_without_namespaces_it_refuses_and_names_the_way_out() -> None:
    body = """
    user = os.getuid()
    libc.unshare(libc.CLONE_NEWUSER)
    open("/proc/self/setgroups", "w").write("deny")
    open("/proc/self/uid_map", "w").write(f"0 {user} 1")
    open("/proc/sys/user/max_user_namespaces", "w").write("0")
    try:
        graded(RIGHT)
    except IsolationUnavailableError as error:
        print(error)
    print(graded(RIGHT, unsafe=True).solved, graded("1/0", unsafe=True).reason)
    """
    refusal, unsafe = output(body).splitlines()
    assert refusal == (
        "This system lets no process have namespaces of its own ([Errno 28] unshare: No space left on device): allow "
        "user namespaces, or accept that hostile programs run without isolation by --unsafe-grading (unsafe=True)."
    )
    assert unsafe == "True raised ZeroDivisionError: division by zero"


def test_without_isolation_limits_hold_and_folders_are_emptied() -> None:
    leaves = "open('left', 'w'); import os; os.mkdir('d'); open('d/x', 'w')\nclass Solution:\n    f = lambda s: 7\n"
    finds = "import os\nclass Solution:\n    f = lambda s: 7 - len(os.listdir('.'))\n"
    with Grader(workers=1, limits=Limits(cpu_seconds=1, wall_seconds=0.5), unsafe=True) as grader:
        graded = grader.grade([Submission(p, CASES, Mode.NONE) for p in (leaves, finds, SLEEPER)])
        assert [verdict.solved for verdict in graded] == [True, True, False]
        marked = Submission("open('result.txt', 'w').write('PASS') and 1/0", CASES, Mode.FILE_MARKER)
        assert grader.grade([marked])[0].exploited
        folder = grader._workers[0]._folder
    assert folder is not None
    assert not Path(folder).exists()
