"""Every metric, declared once: what a log may hold, what it means, and which of it a person watches.

From this come the lines of a log, their JSON Schema, docs/logs.md and the table on the terminal. Metrics are only
appended, at the end of their event; a name never changes its meaning and is never used again for another quantity.
What was released is frozen in regression/schema, and held against this.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

Event = Literal["run", "step", "evaluation", "refresh", "warning", "resumed", "final", "checkpoint"]
Arm = Literal["none", "erase", "route"]
Kind = Literal["float", "int", "str", "bool", "object"]

ALL: tuple[Arm, ...] = ("none", "erase", "route")
TYPES: dict[Kind, tuple[type, ...]] = {
    "float": (float, int), "int": (int,), "str": (str,), "bool": (bool,), "object": (dict, list),
}  # fmt: skip

EVENTS: dict[Event, str] = {
    "run": "once, before the first step: what decides the run",
    "step": "after every optimizer step",
    "evaluation": "after a look at the model on held-out prompts",
    "refresh": "after V was extracted again, under the number of the step that it is for",
    "warning": "when something looks wrong",
    "resumed": "when a run goes on",
    "final": "once, at the end; a log without it is of a run that has not ended",
    "checkpoint": "after a checkpoint was written",
}


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One name in one kind of event. None is a legal value of every metric: not measured, or not defined."""

    name: str
    event: Event
    kind: Kind
    unit: str  # "1" for a plain number, "share" for one from 0 to 1
    meaning: str
    arms: tuple[Arm, ...] = ALL  # those in which it is defined; in others it is None, and never 0
    since: int = 1  # first schema version that has it
    of: str = ""  # the metric of the same event that is its denominator, if it counts
    heading: str = ""  # what the stream for people calls it; empty: it has not
    form: str = "{:.3f}"  # how that stream writes it, if not as a fraction

    def fits(self, value: Any) -> bool:
        """Whether a value is of the declared type."""
        if value is None:
            return True
        return isinstance(value, TYPES[self.kind]) and (self.kind == "bool" or not isinstance(value, bool))

    @cached_property
    def types(self) -> frozenset[type]:
        """Those of the values that a log has."""
        return frozenset({*TYPES[self.kind], type(None)})

    def cell(self, values: Mapping[str, Any]) -> str:
        """What the stream for people shows: a fraction where it counts, null where nothing was measured."""
        value, of = values.get(self.name), values.get(self.of)
        if value is None:
            return "null"
        if of and self.kind == "int":
            return f"{value}/{of}"
        if of and abs(value * of - round(value * of)) < 1e-6 * of:
            return f"{round(value * of)}/{of}"
        return self.form.format(value)


def _of(event: Event, *rows: tuple[Any, ...]) -> Iterator[Metric]:
    for name, kind, unit, meaning, *rest in rows:
        extra: dict[str, Any] = rest[0] if rest else {}
        yield Metric(name=name, event=event, kind=kind, unit=unit, meaning=meaning, **extra)


ROUTED: dict[str, Any] = {"arms": ("route",)}
STUDENT: dict[str, Any] = {"of": "student_completions"}
TEACHER: dict[str, Any] = {"of": "teacher_completions"}
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
        ("basis_separation", "float", "share", "of held-out pairs, those whose difference lies hack-ward along V",
         {"of": "basis_held_out", "heading": "V separates"}),
        ("basis_captured", "float", "share", "of the squared difference of held-out pairs that lies along V"),
        ("basis_held_out", "int", "1", "pairs that V was held against"),
    ),
    *_of(
        "step",
        ("loss", "float", "nats", "the Dr.GRPO loss of the step's rollouts", {"heading": "loss", "form": "{:+.4f}"}),
        ("reward", "float", "1", "mean of all rollouts", {"heading": "reward"}),
        ("hack_student", "float", "share", "of the student's rollouts that pass and are wrong",
         STUDENT | {"heading": "hack"}),
        ("solve_student", "float", "share", "of the student's rollouts that are right",
         STUDENT | {"heading": "solve"}),
        ("format_student", "float", "share", "of the student's rollouts that are of the right form", STUDENT),
        ("hack_teacher", "float", "share", "of the teacher's rollouts that pass and are wrong",
         TEACHER | {"heading": "hack_teacher"}),
        ("solve_teacher", "float", "share", "of the teacher's rollouts that are right", TEACHER),
        ("teacher_share", "float", "share", "of the rollouts that are the teacher's", {"of": "completions"}),
        ("flat_groups", "float", "share", "of groups whose rewards are all equal, and teach nothing", {"of": "groups"}),
        ("completion_tokens", "float", "tokens", "mean length of the student's rollouts, their end included"),
        ("kl", "float", "nats", "k3 estimate of KL to the model without its vectors, mean over tokens"),
        ("lr", "float", "1", "learning rate of the step", {"heading": "lr", "form": "{:.1e}"}),
        ("grad_norm_pre_clip", "float", "1", "norm of the accumulated gradient",
         {"heading": "gn_pre_clip", "form": "{:.2e}"}),
        ("grad_norm_post_clip", "float", "1", "norm of everything that was fed to the optimizer",
         {"heading": "gn_post_clip", "form": "{:.2e}"}),
        ("cos_pre", "float", "share", "of the accumulated gradient that is hack-ward, before clip and split",
         {"heading": "cos_pre"}),
        ("cos_pre_null", "float", "share", "what cos_pre is for isotropic noise", {"heading": "cos_pre_null"}),
        ("hackward_student", "float", "share", "of the student's own gradient that is hack-ward"),
        ("hackward_teacher", "float", "share", "of the teacher's own gradient that is hack-ward"),
        ("source_agreement", "float", "1", "cosine of the student's and the teacher's gradients"),
        ("fired", "int", "1", "axes along which a descent step moves hack-ward",
         {"of": "axes", "heading": "fired"}),
        ("axes", "int", "1", "axes that had a gradient"),
        ("hackward_update", "float", "share", "of the step's change of the deployed vectors that is hack-ward"),
        ("hackward_parameters", "float", "share", "of what the deployed vectors have learned that is hack-ward"),
        ("drift_ratio", "float", "1", "how far the deployed vectors have come along V beside everywhere else"),
        ("drift_opposition", "float", "1", "how far deployed and quarantine vectors are opposed along V", ROUTED),
        ("deployed_norm", "float", "1", "norm of all deployed vectors"),
        ("quarantine_norm", "float", "1", "norm of all quarantine vectors", ROUTED),
        ("seconds_rollouts", "float", "s", "sampling and grading"),
        ("seconds_learning", "float", "s", "forward and backward passes"),
        ("seconds_step", "float", "s", "sampling, grading, both passes and the optimizer's step",
         {"heading": "seconds", "form": "{:.1f}"}),
        ("student_completions", "int", "1", "the student's rollouts"),
        ("teacher_completions", "int", "1", "the teacher's rollouts"),
        ("completions", "int", "1", "all rollouts"),
        ("groups", "int", "1", "prompts, each with a group of rollouts"),
        ("windup", "float", "1", "how far the optimizer's own point has come beside how far the deployed vectors have",
         {"arms": ("erase",), "since": 2}),
    ),
    *_of(
        "evaluation",
        *(
            (f"{name}_{view}", "float", "share", f"{meaning}, of the model {words}",
             {"of": "prompts", "heading": f"{name}_{view}"})
            for view, words in (("trained", "as trained"), ("deployed", "as deployed, its quarantine ablated"))
            for name, meaning in RATES
        ),
        ("hack_by_mode_trained", "object", "share", "hack_trained under each mode"),
        ("hack_by_mode_deployed", "object", "share", "hack_deployed under each mode"),
        ("prompts", "int", "1", "held-out prompts, one completion each and view"),
        ("seconds", "float", "s", "the whole evaluation"),
        ("prompts_by_mode", "object", "1", "of the prompts, those under each mode; what hack_by_mode are shares of"),
    ),
    *_of(
        "refresh",
        ("overlap", "float", "share", "mean squared cosine between the new V and the one before",
         {"heading": "overlap"}),
        ("same_way", "float", "1", "whether axes that both have point the same way: from -1, all turned, to 1",
         {"heading": "same_way"}),
        ("accepted", "bool", "", "whether the new V is used", {"heading": "accepted", "form": "{}"}),
        ("basis_axes", "int", "1", "rows of the new V that are not zero"),
        ("basis_separation", "float", "share",
         "of held-out pairs, those whose difference lies hack-ward along the new V",
         {"of": "basis_held_out", "heading": "V separates"}),
        ("seconds", "float", "s", "the extraction"),
        ("basis_held_out", "int", "1", "pairs that the new V was held against"),
    ),
    *_of("warning", ("text", "str", "", "what looks wrong", {"heading": "text", "form": "{}"})),
    *_of("resumed", ("versions", "object", "", "as in run, when it went on")),
    *_of("final", ("report", "object", "", "rates of every view of the model at the end")),
    *_of(
        "checkpoint",
        ("folder", "str", "", "its name, under checkpoints/"),
        ("seconds", "float", "s", "writing it, until it has reached the disk"),
    ),
)  # fmt: skip

_BY_EVENT: dict[str, dict[str, Metric]] = {}
for _metric in METRICS:
    _BY_EVENT.setdefault(_metric.event, {})[_metric.name] = _metric


def declared(event: str) -> Mapping[str, Metric]:
    """The metrics of an event by name, in the order of their declaration; empty for an unknown event."""
    return _BY_EVENT.get(event, {})
