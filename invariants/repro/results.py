"""Recording a GRPO loss and an extraction: what came back of each call that a check made."""

from dataclasses import dataclass, field, fields
from typing import Any

from torch import Tensor

from invariants.cases.grpo import GRPOCase
from invariants.trials import ExtractionTrial, GRPOTrial, Trial
from invariants.trials.extraction import Handed


def of_fields(trial: Any) -> dict[str, Any]:
    """What a trial was made with."""
    return {f.name: getattr(trial, f.name) for f in fields(trial) if f.init}


@dataclass(frozen=True)
class RecordedGRPO(GRPOTrial):
    """A trial that keeps every gradient and advantage, and the batch where it is another than the first."""

    gradients: list[Tensor] = field(default_factory=list, init=False)
    shown_advantages: list[Tensor] = field(default_factory=list, init=False)
    changed: list[dict[str, Tensor]] = field(default_factory=list, init=False)
    sources: dict[str, Tensor] = field(default_factory=dict, init=False)

    def gradient_on(self, case: GRPOCase, *, off_policy: bool = False, micro_batches: int = 1) -> Tensor:
        """Recorded."""
        gradient = super().gradient_on(case, off_policy=off_policy, micro_batches=micro_batches)
        self.gradients.append(gradient)
        self.changed.append({"rewards": case.rewards})
        return gradient

    def advantages(self, rewards: Tensor) -> Tensor | None:
        """Recorded."""
        shown = super().advantages(rewards)
        self.shown_advantages.extend([] if shown is None else [shown])
        return shown

    def by_source(self) -> Any:
        """Recorded."""
        sources = super().by_source()
        self.sources.update(sources or {})
        return sources


class GRPORecording:
    """The gradients that a loss gave, and what else it showed."""

    subject, accepts_live = "", False
    playback: tuple[Any, ...] = ()

    def __init__(self, trial: GRPOTrial) -> None:
        self._recorded = RecordedGRPO(**of_fields(trial))
        self.trial: Trial = self._recorded

    def inputs(self) -> dict[str, object]:
        """The batch."""
        case, setting = self._recorded.given, self._recorded.setting
        names = ("logits", "rewards", "old_log_probs", "reference_log_probs")
        values = {name: getattr(case, name).to(self._recorded.dtype) for name in names}
        same = ("tokens", "prompt_tokens", "teacher", "end_token", "pad_token", "max_new_tokens")
        values |= {name: getattr(case, name) for name in same}
        return {"batch": {**values, "clip_epsilon": setting.clip_epsilon, "beta": setting.beta}}

    def outputs(self) -> dict[str, object]:
        """In the order of the check."""
        it = self._recorded
        return {
            "gradients": it.gradients,
            "advantages": it.shown_advantages,
            "changed": it.changed,
            "sources": it.sources,
        }


@dataclass(frozen=True)
class RecordedExtraction(ExtractionTrial):
    """A trial that keeps the axes of every call, and the floors that it was made with."""

    axes: list[dict[str, Tensor]] = field(default_factory=list, init=False)
    floors: list[list[Any]] = field(default_factory=list, init=False)

    def extract(self, handed: Handed) -> dict[str, Tensor]:
        """Recorded."""
        axes = super().extract(handed)
        self.axes.append(axes)
        return axes

    def run(self, **variation: object) -> dict[str, Tensor]:
        """Notes the floor."""
        axes = super().run(**variation)
        for kind in ("relative", "global"):
            if f"{kind}_floor" in variation:
                self.floors.append([kind, variation[f"{kind}_floor"]])
        return axes


class ExtractionRecording:
    """The axes that came back."""

    subject, accepts_live = "", False
    playback: tuple[Any, ...] = ()

    def __init__(self, trial: ExtractionTrial) -> None:
        self._recorded = RecordedExtraction(**of_fields(trial))
        self.trial: Trial = self._recorded

    def inputs(self) -> dict[str, object]:
        """The losses of all completions."""
        it = self._recorded
        modules = {
            name: {part: getattr(m, part).to(it.dtype) for part in ("slopes", "bends", "deployed", "quarantine")}
            for name, m in it.modules.items()
        }
        return {"modules": modules, "k": it.case.k}

    def outputs(self) -> dict[str, object]:
        """In the order of the check."""
        return {"runs": self._recorded.axes, "floors": self._recorded.floors}
