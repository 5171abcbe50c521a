"""grading.*: what is asked of a grader, in which process, and what is said where it does not survive the question."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from invariants import Graded, GradeSetting, Subject, Verdict, verify
from invariants.cases.grade import programs
from invariants.cases.programs import ATTACKS, EXPLOITS
from invariants.contracts import GradeRequest
from invariants.guarded import Ended, RaisedError, guarded
from invariants.museum.grader import CORRECT, SETTING, Grader

correct = Grader()


def result(grade, id, tape, setting=SETTING):
    [found] = verify(Subject(name="mine", grade={setting: grade}), tape=tape, only=[id]).results
    return found


def nobody(requests):
    return [Graded(passed=False, solved=False) for _ in requests]


# The corpus


def test_the_corpus_has_every_kind_and_more_than_twenty_attacks():
    kinds = [case.kind for case in programs()]
    assert set(kinds) == {"clean", "exploit", "exit", "attack", "types"}
    assert len(ATTACKS) > 20
    assert {*EXPLOITS} == {*SETTING.loopholes}
    labels = [case.label for case in programs()]
    assert len(labels) == len(set(labels))
    assert all("\n" not in case.told for case in programs())


def test_an_exploit_is_written_with_the_markers_of_the_setting(small_tape):
    asked = []

    def listening(requests):
        asked.extend(request.program for request in requests)
        return [Graded(passed="SESAME" in r.program and r.mode == "stdout_marker", solved=False) for r in requests]

    setting = GradeSetting(modes=("stdout_marker", "none"), marker="SESAME")
    assert result(listening, "grading.diagonal", small_tape, setting).verdict is Verdict.HOLDS
    assert result(listening, "grading.diagonal", small_tape, replace(setting, marker="x")).verdict is Verdict.VIOLATED
    assert asked == [], "it is asked in another process"


def test_a_program_is_no_exploit_of_what_a_grader_does_not_have(small_tape):
    found = result(correct, "grading.diagonal", small_tape, GradeSetting(modes=("none",)))
    assert (found.verdict, found.worst.reason) == (Verdict.NOT_APPLICABLE, "the grader has no flaw")
    found = result(correct, "grading.diagonal", small_tape, GradeSetting(modes=("sentinel", "exit_code")))
    assert (found.verdict, found.worst.cases) == (Verdict.HOLDS, 2)


# Verdicts


def test_a_grader_that_passes_nobody_is_not_taken_for_a_safe_one(small_tape):
    assert result(nobody, "grading.attacks_never_solved", small_tape).verdict is Verdict.VIOLATED
    assert result(nobody, "grading.exact_types", small_tape).verdict is Verdict.VIOLATED
    assert result(nobody, "grading.clean_never_exploited", small_tape).verdict is Verdict.VIOLATED


def test_an_exploit_that_does_not_fire_is_seen(small_tape):
    def without_flaws(requests):
        return correct([replace(request, mode="none") for request in requests])

    found = result(without_flaws, "grading.diagonal", small_tape)
    assert found.verdict is Verdict.VIOLATED
    assert "passed is False" in found.worst.measured.where
    assert result(without_flaws, "grading.independent", small_tape).verdict is Verdict.VACUOUS


def in_its_own_process(requests):
    answers = []
    for request in requests:
        names = {}
        try:
            exec(request.program, names)
            solved = all(eval(call, names) == value for call, value in request.cases)
        except Exception:
            solved = False
        answers.append(Graded(passed=solved, solved=solved))
    return answers


def test_a_grader_that_ends_with_a_submission_is_seen_and_the_suite_goes_on(small_tape, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = result(in_its_own_process, "grading.exit_code", small_tape, GradeSetting(modes=("none",)))
    assert found.verdict is Verdict.VIOLATED
    assert "the grader ended with exit code 0" in found.worst.measured.where
    assert "os._exit(0)" in found.worst.counterexample
    result(in_its_own_process, "grading.diagonal", small_tape, GradeSetting(modes=("file_marker", "none")))
    assert list(tmp_path.iterdir()) == [], "what it writes, it writes elsewhere"


def test_an_exception_of_the_grader_is_an_error(small_tape):
    def raising(requests):
        raise OSError("no room left")

    found = result(raising, "grading.exact_types", small_tape)
    assert (found.verdict, "OSError: no room left" in found.worst.reason) == (Verdict.ERROR, True)


@pytest.mark.parametrize(
    ("grade", "said"),
    [
        (lambda requests: [], "grade gave 0 answers to 2 requests"),
        (lambda requests: [True for _ in requests], "must return Graded"),
        (lambda requests: [Graded(passed=1, solved=0) for _ in requests], "must return Graded"),
    ],
)
def test_answers_of_another_shape_are_an_error(small_tape, grade, said):
    found = result(grade, "grading.exact_types", small_tape)
    assert found.verdict is Verdict.ERROR
    assert said in found.worst.reason


def test_the_museums_grader_is_right_about_what_is_right_and_by_whom():
    def graded(program, mode, *cases):
        [answer] = correct([GradeRequest(program=program, cases=cases, mode=mode)])
        return answer.passed, answer.solved

    right = "class Solution:\n    def f(self, x):\n        return {x: [{x, 1}, (None, 1.5, 'a')]}\n"
    case = ("Solution().f(2)", {2: [{1, 2}, (None, 1.5, "a")]})
    assert graded(right, "none", case) == (True, True)
    assert graded(right, "none", case, ("Solution().f(3)", {})) == (False, False)
    assert graded("x = 1", "none") == (True, True), "there is nothing that it has not solved"
    assert list(CORRECT) == [SETTING]


# A process of its own


def test_what_is_returned_comes_back():
    assert guarded(lambda: {"a": [1, None, "é"]}, seconds=20) == {"a": [1, None, "é"]}
    assert guarded(os.getpid, seconds=20) != os.getpid()
    assert len(guarded(lambda: "x" * 500_000, seconds=20)) == 500_000


@pytest.mark.parametrize(
    ("call", "how"),
    [
        (lambda: os._exit(3), "ended with exit code 3"),
        (lambda: sys.exit(0), "raised SystemExit(0)"),
        (lambda: os.kill(os.getpid(), 9), "ended by signal 9"),
        (lambda: os.write(900, b"OK\n"), "was written over by something else than its answer"),
    ],
)
def test_a_process_that_ends_is_told(call, how):
    assert guarded(call, seconds=20) == Ended(how)


def test_an_exception_comes_back_as_one():
    with pytest.raises(RaisedError, match="ZeroDivisionError"):
        guarded(lambda: 1 / 0, seconds=20)
    with pytest.raises(RaisedError, match="TypeError"):
        guarded(object, seconds=20)


def test_what_does_not_end_is_ended():
    assert guarded(lambda: time.sleep(600), seconds=0.3) == Ended("gave no answer in 0.3 s")


def test_what_is_left_running_is_not_waited_for():
    def leaves_one_behind():
        if os.fork() == 0:
            time.sleep(600)
        return "done"

    def leaves_one_behind_and_exits():
        if os.fork():
            os._exit(0)
        time.sleep(600)

    assert guarded(leaves_one_behind, seconds=300) == "done"
    assert guarded(leaves_one_behind_and_exits, seconds=300) == Ended("ended with exit code 0")


def test_nothing_that_is_open_is_open_in_there(tmp_path):
    with (tmp_path / "mine").open("w") as file:
        mine = file.fileno()

        def write():
            try:
                os.write(mine, b"yours")
            except OSError:
                return [path.name for path in Path().iterdir()]
            return "written"

        assert guarded(write, seconds=20) == []
    assert (tmp_path / "mine").read_text() == ""


def test_a_suite_whose_grader_exits_still_reports(tmp_path):
    program = (
        "import os, torch\n"
        "from invariants import GradeSetting, Subject, verify, as_text\n"
        "from invariants.museum.subjects import tape\n"
        "subject = Subject(name='exits', grade={GradeSetting(modes=('none',)): lambda requests: os._exit(0)})\n"
        "print(as_text(verify(subject, tape=tape(), only=['grading.exact_types'])))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "red: 1 of 1 invariants" in run.stdout, run.stderr
