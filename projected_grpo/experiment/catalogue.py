"""The experiments there are."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from projected_grpo.environment.modes import Mode
from projected_grpo.experiment.grid import Arm, Changes, Experiment
from projected_grpo.training.config import TrainConfig
from projected_grpo.training.presets import PRESETS

WARM_UPS = (0, 1)
HARD_STEPS = 120


def _without_looks(preset: str) -> TrainConfig:
    """A preset without looks on the way, which change no bit of a run and cost a third of it."""
    own = PRESETS[preset]
    return replace(own, evaluation=replace(own.evaluation, evaluate_every=0), run=replace(own.run, checkpoint_every=35))


TINY = _without_looks("tiny")


def _changes(intervention: str, basis: Mapping[str, Any] | None = None, **routing: Any) -> Changes:
    return {"routing": {"intervention": intervention, **routing}, "basis": dict(basis or {})}


def _posthoc(name: str, basis: Mapping[str, Any] | None = None, *, of: str = "vanilla", **arm: Any) -> Arm:
    return Arm(name=name, changes={"basis": dict(basis or {})}, of=of, **arm)


VANILLA = Arm(name="vanilla", changes=_changes("none"))
CONTROLS = ("random", "flipped", "shuffled", "clean")


def _arms() -> tuple[Arm, ...]:
    """Routing with every kind of V would be as many rows: in displacement space it ends where the post-hoc projection
    along that V does, as the rows of the hack's and of a random V show."""
    random, flipped = {"basis": "random"}, {"basis": "flipped"}
    return (
        VANILLA,
        _posthoc("posthoc", control="posthoc, random V"),
        Arm(name="route", changes=_changes("route"), against="posthoc", control="route, random V"),
        Arm(name="erase", changes=_changes("erase"), against="posthoc", control="erase, random V"),
        *(_posthoc(f"posthoc, {kind} V", {"basis": kind}) for kind in CONTROLS),
        Arm(name="route, random V", changes=_changes("route", random), against="posthoc, random V"),
        Arm(name="erase, random V", changes=_changes("erase", random), against="posthoc, random V"),
        Arm(name="erase, flipped V", changes=_changes("erase", flipped), against="posthoc, flipped V"),
        Arm(name="strict reward", changes={**_changes("none"), "task": {"reward": "strict"}}, against="posthoc"),
    )


RULES = (
    ("gradient", "one_sided"), ("gradient", "no_gate"), ("gradient", "predictable"), ("update", "one_sided"),
    ("update", "no_gate"), ("update", "predictable"), ("displacement", "one_sided"), ("displacement", "no_gate"),
    ("displacement", "predictable"),
)  # fmt: skip
HARD = {"": 1e-2, ", twice the rate": 2e-2}


def _spaces() -> tuple[Arm, ...]:
    """Every space and gate, on the normal schedule and at constant rates for longer, each also with a random V.

    Erasing is there on the normal schedule only: `windup` pushes it.
    """
    schedules: dict[str, dict[str, Any]] = {"": {}}
    for how, lr in HARD.items():
        schedules[f", hard{how}"] = {"grpo": {"steps": HARD_STEPS, "lr": lr, "schedule": "constant"}}
    arms = [
        *(Arm(name=f"vanilla{hard}", changes={**_changes("none"), **grpo}) for hard, grpo in schedules.items()),
        *_projections(*schedules),
    ]
    for space, gate in RULES:
        for intervention in ("route", "erase"):
            for hard, grpo in schedules.items() if intervention == "route" else [("", {})]:
                rule: dict[str, Any] = {"space": space, "gate": gate}
                arms += _with_random(
                    f"{intervention}, {space} {gate}{hard}", intervention, f"posthoc{hard}", grpo=grpo, **rule
                )
    return tuple(arms)


def _projections(*schedules: str) -> list[Arm]:
    """What vanilla of each schedule has learned, projected along the hack's and along a random V."""
    return [
        arm
        for hard in schedules
        for arm in (
            _posthoc(f"posthoc{hard}", of=f"vanilla{hard}", control=f"posthoc{hard}, random V"),
            _posthoc(f"posthoc{hard}, random V", {"basis": "random"}, of=f"vanilla{hard}"),
        )
    ]


def _with_random(
    name: str, intervention: str, against: str, *, basis: Mapping[str, Any] = MappingProxyType({}),
    grpo: Changes = MappingProxyType({}), **rule: Any,
) -> tuple[Arm, Arm]:  # fmt: skip
    """An arm and the same with a random V, each against the projection along its own."""
    random = {**basis, "basis": "random"}
    return (
        Arm(name=name, changes={**_changes(intervention, basis, **rule), **grpo}, against=against,
            control=f"{name}, random V"),
        Arm(name=f"{name}, random V", changes={**_changes(intervention, random, **rule), **grpo},
            against=f"{against}, random V"),
    )  # fmt: skip


def _by_rule() -> dict[str, dict[str, str]]:
    """Hack and solve of every rule under every kind of pressure."""
    columns = {
        "route": "route, {}", "route, hard": "route, {}, hard",
        "route, twice the rate": "route, {}, hard, twice the rate", "erase": "erase, {}",
        "route, random V": "route, {}, random V", "route, hard, random V": "route, {}, hard, random V",
        "route, twice the rate, random V": "route, {}, hard, twice the rate, random V",
        "erase, random V": "erase, {}, random V",
    }  # fmt: skip
    rules = [f"{space} {gate}" for space, gate in RULES]
    return {heading: {rule: name.format(rule) for rule in rules} for heading, name in columns.items()}


def _confirm() -> tuple[Arm, ...]:
    """What seemed to beat the post-hoc projection in `spaces`, on seeds that nothing was chosen by."""
    arms = [VANILLA, *_projections("")]
    for space, gate in (("gradient", "no_gate"), ("gradient", "predictable"), ("update", "one_sided")):
        arms += _with_random(f"route, {space} {gate}", "route", "posthoc", space=space, gate=gate)
    return tuple(arms)


WEAK = (Mode.RUN_TESTS, Mode.SENTINEL)


def _weak() -> tuple[Arm, ...]:
    weak, random = {"detector_modes": WEAK}, {"detector_modes": WEAK, "basis": "random"}
    arms = [
        VANILLA,
        _posthoc("posthoc, all modes", control="posthoc, random V"),
        _posthoc("posthoc", weak, control="posthoc, random V"),
        _posthoc("posthoc, random V", random),
    ]
    for intervention in ("erase", "route"):
        for space in ("gradient", "update", "displacement"):
            arms += _with_random(f"{intervention}, {space}", intervention, "posthoc", basis=weak, space=space)
    return tuple(arms)


def _refresh() -> tuple[Arm, ...]:
    """A random V is drawn once: it would be the same whenever it is drawn again."""
    arms = [VANILLA, *_projections("")]
    for intervention in ("erase", "route"):
        for every in (0, 10):
            name = f"{intervention}, {'never' if not every else f'every {every} steps'}"
            arms.append(
                Arm(name=name, changes=_changes(intervention, {"refresh_every": every}), against="posthoc",
                    control=f"{intervention}, random V")
            )  # fmt: skip
        arms.append(
            Arm(name=f"{intervention}, random V", changes=_changes(intervention, {"basis": "random"}),
                against="posthoc, random V")
        )  # fmt: skip
    return tuple(arms)


def _k() -> tuple[Arm, ...]:
    arms = [VANILLA]
    for k in (1, 4, 8, 16):
        own, random = {"k": k}, {"k": k, "basis": "random"}
        arms += [
            _posthoc(f"posthoc, k = {k}", own, control=f"posthoc, k = {k}, random V"),
            _posthoc(f"posthoc, k = {k}, random V", random),
            *_with_random(f"erase, k = {k}", "erase", f"posthoc, k = {k}", basis=own),
        ]
    return tuple(arms)


def _windup() -> tuple[Arm, ...]:
    """What erase drops and its optimizer keeps, on the normal schedule and pushed, and how much of it may stay."""
    pushed: Changes = {"grpo": {"steps": HARD_STEPS, "lr": HARD[""], "schedule": "constant"}}
    arms = [VANILLA, Arm(name="vanilla, hard", changes={**_changes("none"), **pushed}), *_projections("", ", hard")]
    for space in ("update", "displacement"):
        for retained in (1.0, 0.9, 0.5, 0.0):
            for hard, grpo in {"": {}, ", hard": pushed}.items():
                if not hard or retained in (1.0, 0.0):
                    name = f"erase, {space}, {retained:g} retained{hard}"
                    arms += _with_random(name, "erase", f"posthoc{hard}", grpo=grpo, space=space, retained=retained)
    return tuple(arms)


EXPERIMENTS: dict[str, Experiment] = {
    each.name: each
    for each in (
        Experiment(
            name="arms", question="What does each arm leave of the hack and of the skill, and does V matter?",
            base=TINY, arms=_arms(), warmups=WARM_UPS,
        ),
        Experiment(
            name="arithmetic", question="The same arms on another kind of task.", base=_without_looks("arithmetic"),
            arms=_arms(),
        ),
        Experiment(
            name="spaces", question="Which space and which gate, and what holds when training is pushed?",
            base=TINY, arms=_spaces(), table=_by_rule(),
        ),
        Experiment(
            name="arithmetic_spaces", question="The same spaces and gates on another kind of task.",
            base=_without_looks("arithmetic"), arms=_spaces(), table=_by_rule(),
        ),
        Experiment(
            name="confirm", question="Is what beat the post-hoc projection in spaces there on other seeds too?",
            base=TINY, arms=_confirm(), seeds=(3, 4, 5), warmups=WARM_UPS,
        ),
        Experiment(
            name="weak", question="V knows two of four modes; what becomes of the other two?", base=TINY,
            arms=_weak(),
        ),
        Experiment(
            name="refresh", question="Does it help to extract V again on the way?", base=TINY, arms=_refresh(),
        ),
        Experiment(
            name="windup", question="What erase drops and its optimizer keeps: does forgetting it help?", base=TINY,
            arms=_windup(),
        ),
        Experiment(name="k", question="How many axes?", base=TINY, arms=_k()),
    )
}  # fmt: skip
