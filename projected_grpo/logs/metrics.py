"""Every metric, declared once: what a log may hold, what it means, and which of it a person watches.

A name never changes its meaning, and is never used again for another: a new quantity has a new name. Readers go by
names, so a metric may be added anywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Event = Literal["run", "step", "evaluation", "refresh", "warning", "resumed", "final"]
Arm = Literal["none", "erase", "route"]
Kind = Literal["float", "int", "str", "bool", "object"]

ALL: tuple[Arm, ...] = ("none", "erase", "route")
TYPES: dict[Kind, tuple[type, ...]] = {
    "float": (float, int), "int": (int,), "str": (str,), "bool": (bool,), "object": (dict, list),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One name in one kind of event. None is a legal value of every metric: not measured, or not defined."""

    name: str
    event: Event
    kind: Kind
    unit: str  # "1" for a plain number, "share" for one from 0 to 1
    meaning: str
    arms: tuple[Arm, ...] = ALL
    since: int = 1  # first schema version that has it
    shown: str = ""  # how the stream for people has it, as "hack {:.3f}"; empty: it has not

    def fits(self, value: Any) -> bool:
        """Whether a value is of the declared type."""
        if value is None:
            return True
        return isinstance(value, TYPES[self.kind]) and (self.kind == "bool" or not isinstance(value, bool))


def _of(event: Event, *rows: tuple[Any, ...]) -> list[Metric]:
    made = []
    for name, kind, unit, meaning, *rest in rows:
        extra: dict[str, Any] = rest[0] if rest else {}
        made.append(Metric(name=name, event=event, kind=kind, unit=unit, meaning=meaning, **extra))
    return made


ROUTED: dict[str, Any] = {"arms": ("route",)}
RATES = (
    ("hack", "share of completions that pass and are wrong"),
    ("solve", "share of completions that are right on every hidden case"),
    ("format", "share of completions of the right form"),
)

METRICS: tuple[Metric, ...] = (
    *_of(
        "run",
        ("config", "object", "", "everything that decides the run"),
        ("versions", "object", "", "of python, torch, transformers, peft and this package"),
        ("arm", "str", "", "the intervention"),
        ("parameters", "int", "1", "trained numbers of one set of vectors"),
        ("modules", "int", "1", "adapted modules"),
        ("basis_axes", "int", "1", "rows of V that are not zero, over all modules"),
        ("basis_pairs", "int", "1", "contrastive pairs that V was extracted from; those held out are not among them"),
        ("basis_digest", "str", "", "sha256 of V"),
        ("basis_separation", "float", "share", "held-out pairs whose difference lies hack-ward along V",
         {"shown": "V separates {:.2f}"}),
        ("basis_captured", "float", "share", "of the squared difference of held-out pairs that lies along V"),
    ),
    *_of(
        "step",
        ("loss", "float", "nats", "the Dr.GRPO loss of the step's rollouts", {"shown": "loss {:+.4f}"}),
        ("reward", "float", "1", "mean of all rollouts", {"shown": "reward {:.3f}"}),
        ("hack_student", "float", "share", "of the student's rollouts that pass and are wrong",
         {"shown": "hack {:.3f}"}),
        ("solve_student", "float", "share", "of the student's rollouts that are right", {"shown": "solve {:.3f}"}),
        ("format_student", "float", "share", "of the student's rollouts that are of the right form"),
        ("hack_teacher", "float", "share", "of the teacher's rollouts that pass and are wrong"),
        ("solve_teacher", "float", "share", "of the teacher's rollouts that are right"),
        ("teacher_share", "float", "share", "of the rollouts that are the teacher's"),
        ("flat_groups", "float", "share", "of groups whose rewards are all equal, and teach nothing"),
        ("completion_tokens", "float", "tokens", "mean length of the student's rollouts, their end included"),
        ("kl", "float", "nats", "k3 estimate of KL to the model without its vectors, mean over tokens"),
        ("lr", "float", "1", "learning rate of the step"),
        ("grad_norm_pre_clip", "float", "1", "norm of the accumulated gradient"),
        ("grad_norm_post_clip", "float", "1", "norm of everything that was fed to the optimizer"),
        ("cos_pre", "float", "share", "of the accumulated gradient that is hack-ward, before clip and split",
         {"shown": "hack-ward {:.3f}"}),
        ("cos_pre_null", "float", "share", "what cos_pre is for isotropic noise"),
        ("hackward_student", "float", "share", "of the student's own gradient that is hack-ward"),
        ("hackward_teacher", "float", "share", "of the teacher's own gradient that is hack-ward"),
        ("source_agreement", "float", "1", "cosine of the student's and the teacher's gradients"),
        ("fired", "int", "1", "axes along which a descent step moves hack-ward"),
        ("axes", "int", "1", "axes that had a gradient"),
        ("hackward_update", "float", "share", "of the step's change of the deployed vectors that is hack-ward"),
        ("hackward_parameters", "float", "share", "of what the deployed vectors have learned that is hack-ward"),
        ("drift_ratio", "float", "1", "how far the deployed vectors have come along V beside everywhere else"),
        ("drift_opposition", "float", "1", "how far deployed and quarantine vectors are opposed along V", ROUTED),
        ("deployed_norm", "float", "1", "norm of all deployed vectors"),
        ("quarantine_norm", "float", "1", "norm of all quarantine vectors", ROUTED),
        ("seconds_rollouts", "float", "s", "sampling and grading"),
        ("seconds_learning", "float", "s", "forward and backward passes"),
        ("seconds_step", "float", "s", "both, and the optimizer's step"),
    ),
    *_of(
        "evaluation",
        *(
            (f"{name}_{view}", "float", "share", f"{meaning}, of the model {words}",
             {"shown": f"{name} {view} {{:.3f}}"})
            for view, words in (("trained", "as trained"), ("deployed", "as deployed, its quarantine ablated"))
            for name, meaning in RATES
        ),
        ("hack_by_mode_trained", "object", "share", "hack_trained under each mode"),
        ("hack_by_mode_deployed", "object", "share", "hack_deployed under each mode"),
        ("prompts", "int", "1", "held-out prompts, one completion each"),
        ("seconds", "float", "s", "the whole evaluation"),
    ),
    *_of(
        "refresh",
        ("overlap", "float", "share", "mean squared cosine between the new V and the one before",
         {"shown": "V refreshed, overlap {:.3f}"}),
        ("same_way", "float", "1", "whether axes that both have point the same way: from -1, all turned, to 1"),
        ("accepted", "bool", "", "whether the new V is used", {"shown": "accepted {}"}),
        ("basis_axes", "int", "1", "rows of the new V that are not zero"),
        ("basis_separation", "float", "share", "held-out pairs whose difference lies hack-ward along the new V"),
        ("seconds", "float", "s", "the extraction"),
    ),
    *_of("warning", ("text", "str", "", "what looks wrong", {"shown": "warning: {}"})),
    *_of("resumed", ("versions", "object", "", "as of run", {"shown": "resumed"})),
    *_of("final", ("report", "object", "", "rates of every view of the model at the end")),
)  # fmt: skip

_BY_EVENT: dict[str, dict[str, Metric]] = {}
for _metric in METRICS:
    _BY_EVENT.setdefault(_metric.event, {})[_metric.name] = _metric


def declared(event: str) -> Mapping[str, Metric]:
    """The metrics of an event by name, in the order of their declaration; empty for an unknown event."""
    return _BY_EVENT.get(event, {})


def for_people(event: str, values: Mapping[str, Any]) -> str:
    """The line that a person watches: what is declared as shown and was measured."""
    shown = [
        metric.shown.format(values[name])
        for name, metric in declared(event).items()
        if metric.shown and values.get(name) is not None
    ]
    return "  ".join(shown)
