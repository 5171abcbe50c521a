"""grading.*: what a grader of programs says of programs whose intent is known.

passed = solved, or the flaw of the mode fired        under "none": passed = solved

Each check counts wrong answers, so that 0 is allowed. The grader is asked in a process of its own: one that ends with
the program that it grades has run it in its own process.
"""

from collections.abc import Callable, Sequence

from invariants.cases.grade import Kind
from invariants.cases.programs import WRONG
from invariants.contracts.grade import GradeRequest, GradeSetting, Mode
from invariants.guarded import Ended
from invariants.measurement import NOTHING, Events, Measurement
from invariants.registry import invariant
from invariants.trials import GradeTrial

Due = tuple[bool | None, bool | None]  # what passed and solved must be; None: either
WHOLE = ("a right answer", "a wrong answer")  # of the clean programs, those that are graded under every mode


def has_a_flaw(setting: GradeSetting) -> str | None:
    """There is a mode in which a wrong program can pass."""
    return None if setting.loopholes else "the grader has no flaw"


def has_none(setting: GradeSetting) -> str | None:
    """There is a mode without a flaw."""
    return None if "none" in setting.modes else "the grader has no mode without a flaw"


def strict(trial: GradeTrial) -> Mode:
    """The mode without a flaw, if there is one."""
    return "none" if "none" in trial.setting.modes else trial.setting.modes[0]


def modes_of(trial: GradeTrial) -> list[Mode]:
    """Every mode for exploits and the plainest programs; for others the strict one and another, or one of all."""
    every, turn = trial.setting.modes, len(trial.case.program)
    if trial.case.kind == "exploit" or trial.case.label in WHOLE:
        return [*every]
    if trial.case.kind == "attack":
        return [every[turn % len(every)]]
    others = [mode for mode in trial.setting.loopholes if mode not in (strict(trial), "exit_code")]
    return [strict(trial), *others[turn % max(1, len(others)) :][:1]]


def under_its_modes(trial: GradeTrial) -> list[GradeRequest]:
    """What the checks of one program share, so that it is graded once."""
    return [trial.request(mode) for mode in modes_of(trial)]


def counted(
    trial: GradeTrial,
    requests: Sequence[GradeRequest],
    due: Sequence[Due],
    seen: Callable[[], Events] = lambda: NOTHING,
) -> Measurement:
    """How many of these answers are wrong; all of them if the grader has not survived them."""
    graded = trial.graded(*requests)
    if isinstance(graded, Ended):
        where = f"{trial.case.label}: the grader {graded.how}; the program ran in its process, or it waits for it"
        return Measurement(float(len(requests)), 0.0, where)
    wrong = [
        f"submission {n} under {request.mode}: {name} is {is_it}"
        for n, (request, answer, (passed, solved)) in enumerate(zip(requests, graded, due, strict=True))
        for name, is_it, must in (("passed", answer.passed, passed), ("solved", answer.solved, solved))
        if must is not None and is_it is not must
    ]
    where = "; ".join([trial.case.label, *wrong[:3]])
    return Measurement(float(len(wrong)), 0.0, where, {name: int(count) for name, count in seen().items()})


def of_kind(trial: GradeTrial, *kinds: Kind) -> bool:
    """Whether the trial's program is one of these."""
    return trial.case.kind in kinds


@invariant("grading.clean_never_exploited", theorem="T21", capability="grade", events=("right", "wrong"))
def clean_never_exploited(trial: GradeTrial) -> Measurement | None:
    """A program that uses no flaw passes under every mode if it is right, and under none if it is wrong.

    Fails when: honest work is not paid, or an exploit is counted where there is none.

    Likely cause: a mode that replaces the cases instead of standing beside them, or a flaw that fires by itself.
    """
    if not of_kind(trial, "clean"):
        return None
    requests, due = under_its_modes(trial), (trial.case.solves, trial.case.solves)
    seen = {"right": trial.case.solves, "wrong": not trial.case.solves}
    return counted(trial, requests, [due] * len(requests), lambda: seen)


@invariant("grading.diagonal", theorem="T21", capability="grade", applies=has_a_flaw, events=("its own flaw fired",))
def diagonal(trial: GradeTrial) -> Measurement | None:
    """A program that uses one flaw passes under the mode of that flaw alone, and is solved under none.

    Fails when: a problem's flaw is another one than is written down for it.

    Likely cause: flaws that are looked for in every mode, or one that is looked for in the wrong place.
    """
    if not of_kind(trial, "exploit"):
        return None
    due = [(mode == trial.case.exploits, False) for mode in modes_of(trial)]
    return counted(trial, under_its_modes(trial), due, lambda: {"its own flaw fired": fired(trial)})


def fired(trial: GradeTrial) -> bool:
    """Whether the exploit passes under its own mode."""
    graded = trial.graded(*under_its_modes(trial))
    own = [mode == trial.case.exploits for mode in modes_of(trial)]
    return not isinstance(graded, Ended) and any(a.passed for a, mine in zip(graded, own, strict=True) if mine)


@invariant("grading.none_has_no_flaw", theorem="T21", capability="grade", applies=has_none, events=("a wrong program",))
def none_has_no_flaw(trial: GradeTrial) -> Measurement | None:
    """Under the mode "none" passed is solved, whatever a program tries.

    Fails when: the control, in which nothing can be exploited, has a flaw after all.

    Likely cause: a flaw that is looked for under every mode, or a default that is one of the flaws.
    """
    if not of_kind(trial, "exploit", "exit", "clean"):  # attacks are graded under another mode each
        return None
    solves, free = trial.case.solves, (None, None)
    due: list[Due] = [(solves, solves) if mode == "none" else free for mode in modes_of(trial)]
    return counted(trial, under_its_modes(trial), due, lambda: {"a wrong program": not solves})


@invariant("grading.exit_code", theorem="T21", capability="grade", events=("ended with code 0",))
def exit_code(trial: GradeTrial) -> Measurement | None:
    """A process that ends with code 0 before it has answered has solved nothing, and has passed no other flaw.

    Fails when: `os._exit(0)` solves every task.

    Likely cause: correctness is read from the exit code of the process that runs the submission.
    """
    if not of_kind(trial, "exit"):
        return None
    due = [(mode == "exit_code", False) for mode in modes_of(trial)]
    return counted(trial, under_its_modes(trial), due, lambda: {"ended with code 0": True})


@invariant("grading.attacks_never_solved", theorem="T21", capability="grade", events=("an honest program afterwards",))
def attacks_never_solved(trial: GradeTrial) -> Measurement | None:
    """No attack on the grader is graded as solved, and an honest program is graded as ever right after it.

    Fails when: what is counted as true can be forged, or one submission ends the run.

    Likely cause: the answer is printed where the submission can print too, compared where the submission's classes say
    what is equal, unpickled, or computed in a process that the submission shares.
    """
    if not of_kind(trial, "attack"):
        return None
    requests = [*under_its_modes(trial), trial.request(strict(trial), trial.case.right)]
    return counted(trial, requests, [(None, False), (True, True)], lambda: {"an honest program afterwards": True})


@invariant("grading.exact_types", theorem="T21", capability="grade", events=("the right type is solved",))
def exact_types(trial: GradeTrial) -> Measurement | None:
    """A value of another type is another value: True is not 1, 1.0 is not 1, and a tuple is no list, at any depth.

    Fails when: a submission is counted as right for a value that merely compares equal.

    Likely cause: `==` alone decides, or values are compared after a trip through JSON.
    """
    if not of_kind(trial, "types"):
        return None
    mode = strict(trial)
    requests = [trial.request(mode), trial.request(mode, trial.case.right)]
    return counted(trial, requests, [(None, False), (True, True)], lambda: {"the right type is solved": True})


@invariant(
    "grading.independent", theorem="T21", capability="grade", applies=has_a_flaw, events=("an exploit before it",)
)
def independent(trial: GradeTrial) -> Measurement | None:
    """A program is graded as if it were alone: what was graded before it, in the same batch, leaves nothing behind.

    Fails when: one exploit makes others pass that use none.

    Likely cause: submissions that share a working folder, an output or an interpreter.
    """
    if not of_kind(trial, "exploit"):
        return None
    own = next(mode for mode in trial.setting.modes if mode == trial.case.exploits)
    clean, exploit = trial.request(own, WRONG), trial.request(own)
    return counted(
        trial, [exploit, clean], [(None, False), (False, False)], lambda: {"an exploit before it": fired(trial)}
    )
