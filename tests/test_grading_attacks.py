"""The attack corpus against the grader: nothing is solved, nothing gets out, nothing stays, and the grader goes on."""

import contextlib
import os
import re
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from attacks import ATTACKS, TOKEN_FORM

from projected_grpo.environment.modes import Mode
from projected_grpo.environment.problem import Case
from projected_grpo.grading import Grader, IsolationUnavailableError, Limits, Submission, Verdict

LIMITS = Limits(cpu_seconds=1, wall_seconds=1.2, memory_mib=256, file_mib=2, folder_mib=4)
TOKEN = "token-" + secrets.token_hex(12)
CASES = (Case("Solution().f()", TOKEN), Case("[Solution().f()]", [TOKEN]))
RIGHT = f"class Solution:\n    def f(self):\n        return {TOKEN!r}\n"


class Scene:
    """What of the caller's the attacks are after, and what became of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secret = folder / "secret.txt"
        self.secret.write_text(TOKEN)
        self.secret.chmod(0o666)  # for anybody who can reach it
        folder.chmod(0o777)
        self.sockets = [socket.socket(), socket.socket(type=socket.SOCK_DGRAM)]
        self.sockets[0].bind(("127.0.0.1", 0))
        port = self.sockets[0].getsockname()[1]
        self.sockets[1].bind(("127.0.0.1", port))
        for name in (str(folder / "socket"), f"\0{TOKEN[:20]}"):
            self.sockets.append(socket.socket(socket.AF_UNIX))
            self.sockets[-1].bind(name)
        for listener in (self.sockets[0], *self.sockets[2:]):
            listener.listen()
        self.places = {
            "OUTSIDE": str(folder), "SECRET": str(self.secret), "PARENT": str(os.getpid()), "PORT": str(port),
            "UNIX_SOCKET": str(folder / "socket"), "ABSTRACT_SOCKET": TOKEN[:20],
            "PACKAGE": str(Path(__file__).parent.parent),
        }  # fmt: skip

    def visitors(self) -> int:
        """How many of the sockets somebody spoke to."""
        count = 0
        for listener in self.sockets:
            listener.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                listener.recv(1) if listener.type == socket.SOCK_DGRAM else listener.accept()[0].close()
                count += 1
        return count

    def close(self) -> None:
        for listener in self.sockets:
            listener.close()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    scene = Scene(tmp_path_factory.mktemp("caller"))
    yield scene
    scene.close()


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(workers=2, limits=LIMITS) as grader:
        try:
            grader.grade([Submission(RIGHT, CASES, Mode.NONE)])
        except IsolationUnavailableError as error:
            pytest.skip(str(error))
        yield grader


@pytest.fixture(scope="module")
def verdicts(grader: Grader, scene: Scene) -> dict[str, Verdict]:
    """Each attack's verdict, graded between right submissions so that there is something to be found in memory."""
    os.environ["SECRET_TOKEN"] = TOKEN
    submissions = []
    for number, attack in enumerate(ATTACKS):
        submissions.append(Submission(f"import re\n{RIGHT}# {number}", CASES, Mode.NONE))
        submissions.append(Submission(attack.program(scene.places), CASES, Mode.NONE))
    try:
        graded = grader.grade(submissions)
    finally:
        del os.environ["SECRET_TOKEN"]
    assert all(verdict.solved for verdict in graded[::2]), "a right submission suffered from an attack beside it"
    return dict(zip([attack.name for attack in ATTACKS], graded[1::2], strict=True))


def test_the_corpus_is_large_and_its_names_differ() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 60
    assert re.fullmatch(TOKEN_FORM, TOKEN)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_no_attack_pays(verdicts: dict[str, Verdict], attack: object) -> None:
    verdict = verdicts[attack.name]  # type: ignore[attr-defined]
    assert not verdict.solved
    assert not verdict.passed
    assert verdict.reason, "an unsolved submission has a reason"
    assert len(verdict.reason) <= 240
    assert verdict.reason.isprintable()
    assert TOKEN not in verdict.reason


def test_nothing_outside_was_changed_or_spoken_to(verdicts: dict[str, Verdict], scene: Scene) -> None:
    assert sorted(path.name for path in scene.folder.iterdir()) == ["secret.txt", "socket"]
    assert scene.secret.read_text() == TOKEN
    assert scene.visitors() == 0
    assert not Path("/created").exists()


def test_nothing_is_alive_afterwards(verdicts: dict[str, Verdict], grader: Grader) -> None:
    workers = [worker._process.pid for worker in grader._workers]
    family = descendants(os.getpid())
    assert family == {*workers, *(child for pid in workers for child in children(pid))}
    assert len(family) == 2 * len(workers), "each worker is a process that waits and one that forks, and nothing else"


def test_the_same_workers_still_grade_right(verdicts: dict[str, Verdict], grader: Grader) -> None:
    right, wrong = grader.grade([Submission(RIGHT + "#", CASES, Mode.NONE), Submission("import re", CASES, Mode.NONE)])
    assert right.solved
    assert not wrong.passed


def test_the_corpus_would_find_the_token_if_it_could(scene: Scene) -> None:
    attack = next(attack for attack in ATTACKS if attack.name == "read_secret")
    with Grader(workers=1, limits=LIMITS, unsafe=True) as grader:
        (verdict,) = grader.grade([Submission(attack.program(scene.places), CASES, Mode.NONE)])
    assert verdict.solved


def children(pid: int) -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and parent_of(path) == pid]


def descendants(pid: int) -> set[int]:
    found: set[int] = set()
    todo = [pid]
    while todo:
        new = children(todo.pop())
        found.update(new)
        todo.extend(new)
    return found


def parent_of(path: Path) -> int | None:
    try:
        return int((path / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return None
