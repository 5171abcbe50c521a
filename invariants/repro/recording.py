"""Recording proxies: while a check runs again on a counterexample, they keep what crosses the capability's boundary."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any, Protocol

from torch import Tensor

from invariants.contracts import Stepper
from invariants.repro import playback
from invariants.repro.adapted import AdapterRecording
from invariants.repro.literal import Code
from invariants.repro.results import ExtractionRecording, GRPORecording
from invariants.trials import AdapterTrial, ExtractionTrial, GRPOTrial, SplitTrial, StepTrial, Trial
from reference import SGD, AdamW


class Recording(Protocol):
    """A trial that records itself while it is checked."""

    trial: Trial
    subject: str
    """What a snippet calls the subject's callable, or "" where it is handed the outputs instead."""
    accepts_live: bool
    playback: tuple[Any, ...]
    """Functions and classes that a script needs to play it back."""

    def inputs(self) -> dict[str, object]:
        """The literal inputs that a script holds, by name."""

    def outputs(self) -> dict[str, object]:
        """What was recorded, by name."""


class SplitRecording:
    """Every call of a split function, with what it did to its arguments and to what it handed out before."""

    subject, accepts_live = "split", True
    playback = (playback.same, playback.recorded_split)

    def __init__(self, trial: SplitTrial) -> None:
        self._function, self._calls = trial.function, list[dict[str, object]]()
        self._handed_out: list[tuple[Tensor, Tensor]] = []
        self._copies: list[tuple[Tensor, Tensor]] = []
        self.trial: Trial = replace(trial, function=self._call)
        self._g, self._V = trial.case.g.to(trial.dtype), trial.case.V.to(trial.dtype)
        self._rule = trial.setting.rule

    def _call(self, g: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
        call: dict[str, object] = {"g": self._named(g), "V": self._named(V)}
        before = g.clone(), V.clone()
        kept, removed = self._function(g, V)
        call |= {"kept": kept.detach().clone(), "removed": removed.detach().clone()}
        for name, now, then in (("g", g, before[0]), ("V", V, before[1])):
            if not playback.same(now, then):
                call[f"{name} afterwards"] = now.detach().clone()
        rewrites = {}
        for number, (parts, copies) in enumerate(zip(self._handed_out, self._copies, strict=True)):
            if not all(map(playback.same, parts, copies)):
                self._copies[number] = parts[0].detach().clone(), parts[1].detach().clone()
                rewrites[number] = list(self._copies[number])
        if rewrites:
            call["rewrites"] = rewrites
        self._handed_out.append((kept, removed))
        self._copies.append((kept.detach().clone(), removed.detach().clone()))
        self._calls.append(call)
        return kept, removed

    def _named(self, t: Tensor) -> object:
        for name, known in (("g", self._g), ("V", self._V)):
            if t.shape == known.shape and playback.same(t, known):
                return Code(name)
        return t.detach().clone()

    def inputs(self) -> dict[str, object]:
        """One gradient, one basis, and the rule."""
        return {"g": self._g, "V": self._V, **asdict(self._rule)}

    def outputs(self) -> dict[str, object]:
        """The calls in their order."""
        return {"CALLS": self._calls, "HANDED_OUT": {}}


class LoopRecording:
    """Every loop that was made, with what each of its steps showed."""

    subject, accepts_live = "make", True
    playback = (playback.RecordedLoop, playback.recorded_loop)

    def __init__(self, trial: StepTrial) -> None:
        self._trial, self._loops = trial, list[dict[str, object]]()
        self.trial: Trial = replace(trial, factory=self._make)

    def _make(self, start: Any, basis: Any, *, intervention: Any, max_norm: float | None) -> Stepper:
        made = self._trial.factory(start, basis, intervention=intervention, max_norm=max_norm)
        steps: list[object] = []
        self._loops.append({"intervention": intervention, "max_norm": max_norm, "steps": steps})
        stepper = made if isinstance(made, Stepper) else Stepper(step=made)
        return replace(stepper, step=self._recording(stepper.step, steps))

    @staticmethod
    def _recording(step: Callable[[Any], Any], steps: list[object]) -> Callable[[Any], Any]:
        def recorded(g: dict[str, Tensor]) -> Any:
            try:
                shown = step(g)
            except Exception as error:
                steps.append(f"{type(error).__name__}: {error}")
                raise
            steps.append([_copied(part) for part in shown])
            return shown

        return recorded

    def inputs(self) -> dict[str, object]:
        """The gradients of every step, the basis, the start, and what the setting says."""
        trial, setting = self._trial, self._trial.setting
        named = {"start": trial.handed(trial.start), "basis": trial.handed(trial.basis)}
        gradients = [trial.handed(g) for g in trial.gradients]
        optimizer = asdict(setting.reference) if isinstance(setting.reference, SGD | AdamW) else None
        rule = asdict(setting.rule)
        says = {
            "space": setting.space, "clip": setting.clip, "rule": Code("rule"), "optimizer": optimizer,
            "retained": setting.retained,
        }  # fmt: skip
        return {
            **named, "other_basis": trial.handed(trial.other_basis), "gradients": gradients,
            "max_norm": trial.max_norm, "arms": list(setting.interventions),
            "rule": rule, "setting": says,
        }  # fmt: skip

    def outputs(self) -> dict[str, object]:
        """The loops in the order in which they were made."""
        return {"LOOPS": self._loops}


def _copied(part: Mapping[str, Any] | None) -> dict[str, object] | None:
    if part is None:
        return None
    return {name: p.detach().clone() if isinstance(p, Tensor) else p for name, p in part.items()}


def recording(trial: Trial) -> Recording | None:
    """The recording of a kind of trial; None for kinds that no script can play back."""
    if isinstance(trial, SplitTrial):
        return SplitRecording(trial)
    if isinstance(trial, AdapterTrial):
        return AdapterRecording(trial)
    if isinstance(trial, GRPOTrial):
        return GRPORecording(trial)
    if isinstance(trial, ExtractionTrial):
        return ExtractionRecording(trial)
    return LoopRecording(trial) if isinstance(trial, StepTrial) else None
