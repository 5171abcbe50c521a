"""Runs invariants on a subject: every setting, every case; measures, and only then judges."""

import functools
import platform
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import date
from importlib import metadata
from pathlib import Path

import torch

from invariants.cases import Case, Cases, Profile, build_cases
from invariants.contracts import Capability, Setting
from invariants.demands import Demands, demands
from invariants.errors import SubjectContractError
from invariants.expectations import Expected
from invariants.labels import labels
from invariants.measurement import Measurement, worst
from invariants.registry import Invariant, selected
from invariants.shrink import described, shrunk
from invariants.subject import Subject
from invariants.trials import TRIALS, Trial
from invariants.verdict import Counterexample, Report, Result, SettingResult, Verdict
from reference import Tape


def verify(
    subject: Subject,
    *,
    tape: Tape | None = None,
    seed: int = 0,
    profile: Profile = "ci",
    only: Collection[str] | None = None,
    expected_violations: Expected | None = None,
    required: Collection[str] = (),
    today: date | None = None,
    shrink: bool = True,
    progress: Callable[[str], object] | None = None,
) -> Report:
    """Every invariant, or those named by `only`, on a subject.

    Args:
        subject: the implementation under test.
        tape: gradients of a real run (`reference.tape.load`); None records a short one in this process.
        seed: of the adversarial cases; the same seed and tape give the same report.
        profile: how much is looked at: "quick", "ci" or "deep".
        only: ids ("split.conservation") or families ("clip").
        expected_violations: id -> reason, for every setting, or "id @ setting" -> reason for one; or Expectations,
            which may have an owner and a last day. Strict: an expectation of which nothing comes is red, among the
            invariants that run, and an expired one excuses nothing.
        required: ids that are red if they turn out not to be applicable.
        today: what expectations expire by; None asks the clock.
        shrink: whether to look for small counterexamples of what is violated; takes seconds for each.
        progress: is told what comes next, such as "clip.covers_both (15 of 41)".

    Raises:
        ExpectationError: an expectation lacks its reason, or is there twice.
        UnknownInvariantError: `only`, `expected_violations`, `required` or the subject's claims name what isn't there.
        UnusableTapeError: the tape's parts do not fit together, or hold what no run can have fed.
    """
    chosen = selected(only)
    asked = demands(subject, chosen, expected_violations=expected_violations, required=required, today=today)
    tell = progress or (lambda what: None)
    if tape is None:
        tell("recording a gradient tape")
        tape = recorded_tape()
    bench = Bench(subject, build_cases(tape, seed, profile), shrink=shrink)
    results = []
    for number, invariant in enumerate(chosen, start=1):
        tell(f"{invariant.id} ({number} of {len(chosen)})")
        results.append(bench.result(invariant, asked))
    return Report(
        subject=subject.name,
        dtype=str(subject.dtype).removeprefix("torch."),
        seed=seed,
        tape={"digest": tape.digest(), "steps": tape.steps, "modules": len(tape.gradients)},
        results=tuple(results),
        profile=profile,
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Of the suite, of torch and of Python; a suite that runs from a bare checkout has none."""
    try:
        own = metadata.version("projected-grpo")
    except metadata.PackageNotFoundError:
        own = "not installed"
    return {"projected-grpo": own, "torch": torch.__version__, "python": platform.python_version()}


@functools.cache
def recorded_tape() -> Tape:
    """The tape of the specification's own route arm, recorded once per process."""
    from reference.loop import LoopConfig, run  # imports transformers, which a replay does not need

    *_, (_, tape) = run(LoopConfig())
    return tape


SHRUNK_SETTINGS = 2
"""Of how many settings an invariant's counterexample is made small; what is wrong in one is mostly wrong in others."""


class Bench:
    """A subject with its trials: made once per setting and case, and shared by all invariants."""

    def __init__(self, subject: Subject, cases: Cases, *, shrink: bool = True) -> None:
        self.subject = subject
        self.cases = cases
        self.shrink = shrink
        self._trials: dict[tuple[Capability, Setting], list[tuple[Case, Trial]]] = {}

    def trials(self, capability: Capability, setting: Setting) -> list[tuple[Case, Trial]]:
        """The cases that can be judged in the subject's dtype, with their trials."""
        key = (capability, setting)
        if key not in self._trials:
            make = self._maker(capability, setting)
            made = [(case, make(case)) for case in getattr(self.cases, capability)]
            self._trials[key] = [(case, trial) for case, trial in made if trial.judgeable]
        return self._trials[key]

    def _maker(self, capability: Capability, setting: Setting) -> Callable[[Case], Trial]:
        function = self.subject.settings(capability)[setting]
        return functools.partial(_trial, TRIALS[capability], function, setting, self.subject.dtype)

    def result(self, invariant: Invariant, asked: Demands) -> Result:
        """One invariant under every setting, as it counts in a run that demands this."""
        named = labels(self.subject.settings(invariant.capability))
        lacking = f"the subject has no {invariant.capability}"
        results = [self._under(invariant, setting, label) for setting, label in named.items()] or [
            SettingResult(setting="", verdict=Verdict.NOT_APPLICABLE, reason=lacking)
        ]
        applied = asked.applied(invariant.id, results)
        if self.shrink and invariant.per == "case":
            applied = self._with_small_counterexamples(invariant, {label: s for s, label in named.items()}, applied)
        return Result(invariant=invariant, settings=applied)

    def _with_small_counterexamples(
        self, invariant: Invariant, settings: Mapping[str, Setting], results: Sequence[SettingResult]
    ) -> tuple[SettingResult, ...]:
        """Looks for smaller ones under the settings that are violated the worst."""
        red = [r for r in results if r.verdict is Verdict.VIOLATED and r.example is not None]
        red.sort(key=lambda r: -r.measured.margin if r.measured else 0.0)
        smaller = {}
        for result in red[:SHRUNK_SETTINGS]:
            assert result.example is not None, "selected above"
            make = self._maker(invariant.capability, settings[result.setting])
            smaller[result.setting] = shrunk(invariant, result.example, make, seed=self.cases.seed)
        return tuple(
            replace(r, example=smaller[r.setting], counterexample=described(smaller[r.setting]))
            if r.setting in smaller and r.verdict is Verdict.VIOLATED
            else r
            for r in results
        )

    def _under(self, invariant: Invariant, setting: Setting, label: str) -> SettingResult:
        if (reason := invariant.applies(setting)) is not None:
            return SettingResult(setting=label, verdict=Verdict.NOT_APPLICABLE, reason=reason)
        claimed = self.subject.claims_it(invariant.id, setting)
        trials = self.trials(invariant.capability, setting)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.cases.seed)  # a subject that draws random numbers draws the same ones every time
            judged = judge(invariant, label, trials[:1] if invariant.per == "setting" else trials)
        if claimed or judged.verdict is Verdict.ERROR:
            return judged
        outcome = "it held" if judged.verdict is Verdict.HOLDS else f"it was {judged.verdict}"
        return replace(judged, verdict=Verdict.NOT_APPLICABLE, reason=f"not claimed; {outcome}")


def judge(invariant: Invariant, label: str, trials: Sequence[tuple[Case, Trial]]) -> SettingResult:
    """Measures every case, then applies the bound, then asks whether the hypotheses occurred."""
    if not trials:
        reason = "no case can be judged in this dtype"
        return SettingResult(setting=label, verdict=Verdict.NOT_APPLICABLE, reason=reason)
    measured: list[tuple[Case, Trial, Measurement]] = []
    for case, trial in trials:
        try:
            measurement = invariant.check(trial)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # a subject that exits, or skips a test, must not end the run as green
            return SettingResult(setting=label, verdict=Verdict.ERROR, reason=f"{told(error)} (case: {case.label})")
        if measurement is not None:
            measured.append((case, trial, measurement))
    if not measured:
        return SettingResult(
            setting=label, verdict=Verdict.NOT_APPLICABLE, reason=f"the subject does not show {invariant.reads}"
        )
    telling = [m for _, _, m in measured if m.can_fail or not m.holds]  # the others could not have come out otherwise
    every = worst(m for _, _, m in measured)
    total = worst(telling) if telling else every
    violating = [each for each in measured if not each[2].holds]
    example = None
    if violating and invariant.per == "case":
        case, trial, m = min(violating, key=lambda each: each[0].size)
        example = Counterexample(case=case, trial=trial, measurement=m)
    absent = [event for event in invariant.events if not total.occurred.get(event)]
    if violating:
        verdict, reason = Verdict.VIOLATED, ""
    elif missing := [event for event in invariant.events if not every.occurred.get(event)]:
        verdict, reason = Verdict.VACUOUS, f"never occurred: {', '.join(missing)}"
    elif not telling:
        verdict, reason = Verdict.NOT_APPLICABLE, "not judged: in this dtype rounding alone may be as large as this"
    elif absent:
        verdict = Verdict.NOT_APPLICABLE
        reason = f"not judged: in this dtype rounding hides every case with: {', '.join(absent)}"
    else:
        verdict, reason = Verdict.HOLDS, ""
    return SettingResult(
        setting=label, verdict=verdict, reason=reason, measured=total, cases=len(measured), example=example,
        counterexample=described(example) if example else "",
    )  # fmt: skip


def _trial(
    make: Callable[..., Trial], function: Callable[..., object], setting: Setting, dtype: torch.dtype, case: Case
) -> Trial:
    return make(function, setting=setting, case=case, dtype=dtype)


def told(error: BaseException) -> str:
    """An exception in one line: what it says, and the last line of code that it went through."""
    message = next(iter(str(error).splitlines()), "")
    if isinstance(error, SubjectContractError):
        return message
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {message}{place}"
