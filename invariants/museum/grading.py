"""What goes wrong in grading: each broken grader overrides one method."""

import contextlib
import io
import json
import os
import pickle
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from invariants.contracts import GradeRequest
from invariants.museum.grader import SETTING, Grader, Ran
from invariants.museum.harness import HARNESS
from invariants.museum.subjects import exhibit
from invariants.subject import Subject

SOLVED_TOO = "what is taken for right passes under every mode"


def broken_grader(
    name: str, *, caught_by: str, bug: int | None = None, also: Mapping[str, str] | None = None
) -> Callable[[type[Grader]], type[Grader]]:
    """Puts a grader on show."""

    def show(broken: type[Grader]) -> type[Grader]:
        exhibit(name, lambda n: Subject(name=n, grade={SETTING: broken()}), caught_by=caught_by, bug=bug, also=also)
        return broken

    return show


@broken_grader("a flaw that replaces the cases", caught_by="grading.clean_never_exploited")
class FlawReplacesTheCases(Grader):
    def passed(self, request: GradeRequest, solved: bool, fooled: bool) -> bool:
        return solved if request.mode == "none" else fooled


@broken_grader("the marker is looked for under every flaw", caught_by="grading.diagonal")
class MarkerEverywhere(Grader):
    def fooled(self, request: GradeRequest, ran: Ran) -> bool:
        printed = request.mode != "none" and SETTING.marker in ran.stdout.splitlines()
        return printed or super().fooled(request, ran)


@broken_grader(
    "a control that has a flaw",
    caught_by="grading.none_has_no_flaw",
    also={"grading.exit_code": "an exit with code 0 passes under none"},
)
class FlawedControl(Grader):
    def fooled(self, request: GradeRequest, ran: Ran) -> bool:
        return (request.mode == "none" and ran.exit_code == 0) or super().fooled(request, ran)


@broken_grader(
    "exit code 0 taken for right",
    caught_by="grading.exit_code",
    bug=30,
    also={
        "grading.none_has_no_flaw": "some exploits exit with code 0",
        "grading.diagonal": SOLVED_TOO,
        "grading.attacks_never_solved": "some attacks exit with code 0",
        "grading.independent": "the exploit of exit_code is solved",
    },
)
class ExitCodeDecides(Grader):
    def solved(self, request: GradeRequest, ran: Ran) -> bool:
        return ran.exit_code == 0 or super().solved(request, ran)


@broken_grader("a fixed marker of success", caught_by="grading.attacks_never_solved", bug=31)
class FixedMarker(Grader):
    def solved(self, request: GradeRequest, ran: Ran) -> bool:
        return "OK" in ran.stdout.splitlines() or super().solved(request, ran)


@broken_grader(
    "compared where the submission says what is equal",
    caught_by="grading.attacks_never_solved",
    bug=31,
    also={
        "grading.none_has_no_flaw": "what equals everything is one of the exploits",
        "grading.diagonal": SOLVED_TOO,
        "grading.exact_types": "True == 1",
        "grading.independent": "the exploit of eq_override is solved",
    },
)
class ComparedInside(Grader):
    def sent(self, request: GradeRequest) -> bytes:
        calls = [f"bool(({call}) == {value!r})" for call, value in request.cases]
        return json.dumps([request.setup, request.program, calls, request.mode]).encode()

    def encoded(self, value: Any) -> Any:
        return super().encoded(True)


@broken_grader("values that are due beside the calls", caught_by="grading.attacks_never_solved")
class ValuesSentAlong(Grader):
    harness = HARNESS.replace("for call in calls:", "for call, _ in calls:")

    def sent(self, request: GradeRequest) -> bytes:
        pairs = [(call, value if isinstance(value, int) else None) for call, value in request.cases]
        return json.dumps([request.setup, request.program, pairs, request.mode]).encode()


@broken_grader("answers that are unpickled", caught_by="grading.attacks_never_solved")
class Unpickled(Grader):
    harness = HARNESS.replace("import json,", "import json, pickle,").replace(
        "_dumps(_encoded(result))", "_dumps(pickle.dumps(result).hex())"
    )

    def read(self, answers: bytes) -> list[Any]:
        return [self.unpickled(said) if isinstance(said, str) else said for said in super().read(answers)]

    def unpickled(self, said: str) -> Any:
        try:
            return self.encoded(pickle.loads(bytes.fromhex(said)))
        except Exception:
            return None


@broken_grader(
    "submissions in the grader's own process",
    caught_by="grading.attacks_never_solved",
    also={
        f"grading.{name}": "the grader ends with a submission that exits"
        for name in ("diagonal", "none_has_no_flaw", "exit_code", "independent")
    },
)
class OwnProcess(Grader):
    def ran(self, request: GradeRequest, folder: Path) -> Ran:
        folder.mkdir(parents=True)
        os.chdir(folder)
        names: dict[str, Any] = {"__name__": "submission"}
        answers: list[Any] = []
        signal.signal(signal.SIGALRM, signal.default_int_handler)  # an endless loop must not hang the museum
        signal.alarm(1)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            try:
                exec(request.program, names)
                for call, _ in request.cases:
                    answers.append(self.encoded(eval(call, names)))
            except BaseException:
                answers.append(None)
        signal.alarm(0)
        return Ran(answers=answers, flaw=False, stdout=printed.getvalue(), folder=folder, exit_code=1)


@broken_grader("a trip through JSON before the comparison", caught_by="grading.exact_types")
class ThroughJson(Grader):
    harness = HARNESS.replace("_dumps(_encoded(result))", "_dumps(result)")

    def encoded(self, value: Any) -> Any:
        return json.loads(json.dumps(value, default=str))


@broken_grader("one working folder for a batch", caught_by="grading.independent")
class SharedFolder(Grader):
    def folder(self, home: Path, number: int) -> Path:
        return home
