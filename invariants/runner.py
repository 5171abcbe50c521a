"""Runs invariants on a subject: every setting, every case; measures, and only then judges."""

import functools
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from invariants.cases import Case, Cases, build_cases
from invariants.contracts import Capability, Setting
from invariants.errors import SubjectContractError, UnknownInvariantError
from invariants.measurement import Measurement, worst
from invariants.registry import Invariant, check_ids, selected
from invariants.subject import Subject
from invariants.trials import TRIALS, Trial
from invariants.verdict import Report, Result, SettingResult, Verdict
from reference import Tape


def verify(
    subject: Subject,
    *,
    tape: Tape | None = None,
    seed: int = 0,
    only: Collection[str] | None = None,
    expected_violations: Mapping[str, str] | None = None,
    progress: Callable[[str], object] | None = None,
) -> Report:
    """Every invariant, or those named by `only`, on a subject.

    Args:
        subject: the implementation under test.
        tape: gradients of a real run (`reference.tape.load`); None records a short one in this process.
        seed: of the adversarial cases; the same seed and tape give the same report.
        only: ids ("split.conservation") or families ("clip").
        expected_violations: id -> reason, for every setting, or "id @ setting" -> reason for one. Strict: an
            expectation of which nothing comes is red, among the invariants that run.
        progress: is told what comes next, such as "clip.covers_both (15 of 41)".

    Raises:
        UnknownInvariantError: `only`, `expected_violations` or the subject's claims name what isn't there.
        UnusableTapeError: the tape's parts do not fit together, or hold what no run can have fed.
    """
    chosen, expected = selected(only), dict(expected_violations or {})
    check_names(subject, expected)
    tell = progress or (lambda what: None)
    if tape is None:
        tell("recording a gradient tape")
        tape = recorded_tape()
    bench = Bench(subject, build_cases(tape, seed))
    results = []
    for number, invariant in enumerate(chosen, start=1):
        tell(f"{invariant.id} ({number} of {len(chosen)})")
        results.append(bench.result(invariant, expected))
    return Report(
        subject=subject.name,
        dtype=str(subject.dtype).removeprefix("torch."),
        seed=seed,
        tape={"digest": tape.digest(), "steps": tape.steps, "modules": len(tape.gradients)},
        results=tuple(results),
    )


@functools.cache
def recorded_tape() -> Tape:
    """The tape of the specification's own route arm, recorded once per process."""
    from reference.loop import LoopConfig, run  # imports transformers, which a replay does not need

    *_, (_, tape) = run(LoopConfig())
    return tape


def check_names(subject: Subject, expected_violations: Mapping[str, str]) -> None:
    """Raises UnknownInvariantError if an expectation or a claim of the subject names an invariant that isn't there, or
    an expectation a setting that the subject has not."""
    labels = {setting.label for capability in TRIALS for setting in subject.settings(capability)}
    claimed = [setting.claims for capability in TRIALS for setting in subject.settings(capability)]
    for claims in (subject.claims, *claimed):
        check_ids(claims or (), f"claims of subject {subject.name!r}")
    for key in expected_violations:
        id, at, label = key.partition(" @ ")
        check_ids([id], "expected violations")
        if at and label not in labels:
            raise UnknownInvariantError(
                f"expected violations: {key!r} names the setting {label!r}, and subject {subject.name!r} has "
                f"{', '.join(sorted(map(repr, labels)))}."
            )


class Bench:
    """A subject with its trials: made once per setting and case, and shared by all invariants."""

    def __init__(self, subject: Subject, cases: Cases) -> None:
        self.subject = subject
        self.cases = cases
        self._trials: dict[tuple[Capability, Setting], list[tuple[Case, Trial]]] = {}

    def trials(self, capability: Capability, setting: Setting) -> list[tuple[Case, Trial]]:
        """The cases that can be judged in the subject's dtype, with their trials."""
        key = (capability, setting)
        if key not in self._trials:
            function = self.subject.settings(capability)[setting]
            make, dtype = TRIALS[capability], self.subject.dtype
            cases = getattr(self.cases, capability)
            made = [(case, make(function, setting=setting, case=case, dtype=dtype)) for case in cases]
            self._trials[key] = [(case, trial) for case, trial in made if trial.judgeable]
        return self._trials[key]

    def result(self, invariant: Invariant, expected_violations: Mapping[str, str]) -> Result:
        """One invariant under every setting."""
        settings = self.subject.settings(invariant.capability)
        lacking = f"the subject has no {invariant.capability}"
        results = [self._under(invariant, setting) for setting in settings] or [
            SettingResult(setting="", verdict=Verdict.NOT_APPLICABLE, reason=lacking)
        ]
        return Result(invariant=invariant, settings=tuple(as_expected(invariant.id, results, expected_violations)))

    def _under(self, invariant: Invariant, setting: Setting) -> SettingResult:
        if (reason := invariant.applies(setting)) is not None:
            return SettingResult(setting=setting.label, verdict=Verdict.NOT_APPLICABLE, reason=reason)
        claimed = self.subject.claims_it(invariant.id, setting)
        trials = self.trials(invariant.capability, setting)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.cases.seed)  # a subject that draws random numbers draws the same ones every time
            judged = judge(invariant, setting.label, trials[:1] if invariant.per == "setting" else trials)
        if claimed or judged.verdict is Verdict.ERROR:
            return judged
        outcome = "it held" if judged.verdict is Verdict.HOLDS else f"it was {judged.verdict}"
        return replace(judged, verdict=Verdict.NOT_APPLICABLE, reason=f"not claimed; {outcome}")


def judge(invariant: Invariant, label: str, trials: Sequence[tuple[Case, Trial]]) -> SettingResult:
    """Measures every case, then applies the bound, then asks whether the hypotheses occurred."""
    if not trials:
        reason = "no case can be judged in this dtype"
        return SettingResult(setting=label, verdict=Verdict.NOT_APPLICABLE, reason=reason)
    measured: list[tuple[Case, Measurement]] = []
    for case, trial in trials:
        try:
            measurement = invariant.check(trial)
        except (Exception, SystemExit) as error:  # a subject that ends the interpreter must not end the run as green
            return SettingResult(setting=label, verdict=Verdict.ERROR, reason=f"{told(error)} (case: {case.label})")
        if measurement is not None:
            measured.append((case, measurement))
    if not measured:
        return SettingResult(
            setting=label, verdict=Verdict.NOT_APPLICABLE, reason=f"the subject does not show {invariant.reads}"
        )
    total = worst(m for _, m in measured)
    violating = [(case, m) for case, m in measured if not m.holds]
    smallest = ""
    if violating and invariant.per == "case":
        case, m = min(violating, key=lambda pair: pair[0].size)
        smallest = f"{case.label}: observed {m.residual:.3g}, allowed {m.bound:.3g}"
    absent = [event for event in invariant.events if not total.occurred.get(event)]
    if violating:
        verdict, reason = Verdict.VIOLATED, ""
    elif absent:
        verdict, reason = Verdict.VACUOUS, f"never occurred: {', '.join(absent)}"
    elif not any(m.can_fail for _, m in measured):
        verdict, reason = Verdict.NOT_APPLICABLE, "not judged: in this dtype rounding alone may be as large as this"
    else:
        verdict, reason = Verdict.HOLDS, ""
    return SettingResult(
        setting=label, verdict=verdict, reason=reason, measured=total, cases=len(measured), counterexample=smallest
    )


def told(error: BaseException) -> str:
    """An exception in one line: what it says, and the last line of code that it went through."""
    message = next(iter(str(error).splitlines()), "")
    if isinstance(error, SubjectContractError):
        return message
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {message}{place}"


def as_expected(id: str, results: Sequence[SettingResult], expected: Mapping[str, str]) -> list[SettingResult]:
    """Turns violations into expected ones, by "id" for every setting or by "id @ setting" for one.

    Strict: an expectation of which nothing came makes the settings that it speaks of red.
    """
    turned = list(results)
    for key, reason in expected.items():
        if key.partition(" @ ")[0] != id:
            continue
        meant = [i for i, r in enumerate(results) if key in (id, f"{id} @ {r.setting}")]
        violated = [i for i in meant if results[i].verdict is Verdict.VIOLATED]
        for i in violated:
            turned[i] = replace(turned[i], verdict=Verdict.EXPECTED_VIOLATION, reason=reason)
        for i in meant if not violated else []:
            if results[i].verdict in (Verdict.HOLDS, Verdict.NOT_APPLICABLE):
                was = results[i].reason or "it holds"
                why = f"expected to be violated ({reason}), but: {was}"
                turned[i] = replace(turned[i], verdict=Verdict.UNEXPECTEDLY_HOLDS, reason=why)
    return turned
