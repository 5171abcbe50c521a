"""Which run a JSONL log is of: what its first line says, checked and put in the words that results need."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from projected_grpo.results.errors import UnreadableLogError
from projected_grpo.results.run import Settings
from projected_grpo.routing import Intervention
from projected_grpo.training.config import TrainConfig, as_plain
from projected_grpo.training.presets import PRESETS

_NAMED = ("intervention", "space", "basis", "measure")  # have a place of their own; the last is for vanilla alone
# What neither an arm nor a configuration includes, though it decides figures.
_OTHERS = {
    "model": ("dtype", "svd_dtype"), "task": ("task", "problems", "modes", "format_weight"),
    "grpo": ("prompts", "lr", "betas", "weight_decay", "warmup", "schedule", "max_norm", "kl_beta", "max_new_tokens",
             "temperature"),
    "teacher": ("pool", "teach_pairs", "teacher_steps"), "evaluation": ("evaluation_prompts",),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What decides the arm, the configuration and the seed."""

    intervention: Intervention
    basis: str
    space: str | None
    reward: str
    variant: tuple[str, ...]
    others: Mapping[str, str]
    seed: int
    steps: int
    evaluate_every: int | None
    settings: Settings


def identity_of(path: Path, entry: dict[str, Any]) -> Identity:
    """Reads the event "run".

    Raises:
        UnreadableLogError: a setting that results need is missing, of another type, or contradicts another.
    """
    config = _Config(path, entry.get("config"))
    intervention = config.text("routing", "intervention")
    if intervention not in get_args(Intervention):
        raise UnreadableLogError(
            f"{path}, line 1: intervention is {intervention!r}, and not one of {', '.join(get_args(Intervention))}; "
            "leave the log out."
        )
    if entry.get("arm", intervention) != intervention:
        raise UnreadableLogError(
            f"{path}, line 1: arm {entry['arm']!r} and intervention {intervention!r} contradict each other; leave the "
            "log out."
        )
    steps = config.count("grpo", "steps")
    settings = Settings(
        preset=config.text("", "preset"), model=config.text("model", "model"), steps=steps,
        group=config.count("grpo", "group"), mix=config.share("teacher", "mix"),
    )  # fmt: skip
    return Identity(
        intervention=intervention,  # type: ignore[arg-type]  # one of its words, as was checked
        basis=config.text("basis", "basis"), space=config.text("routing", "space"),
        reward=config.text("task", "reward"), variant=() if intervention == "none" else _variant(config.values),
        others=_others(config.values),
        seed=config.count("run", "seed"), steps=steps, evaluate_every=config.count("evaluation", "evaluate_every"),
        settings=settings,
    )  # fmt: skip


def _variant(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Settings of the split and of V that are not as the run's preset has them; what a log does not say is as usual."""
    usual = as_plain(PRESETS.get(config["preset"], TrainConfig()))
    return tuple(
        f"{name} {_plain(value)}"
        for part in ("routing", "basis")
        for name, value in config[part].items()
        if name not in _NAMED and not (name in usual[part] and usual[part][name] == value)
    )


def _others(config: Mapping[str, Any]) -> dict[str, str]:
    parts = {part: values for part in _OTHERS if isinstance(values := config.get(part), dict)}
    return {
        f"{part}.{name}": _plain(values[name])
        for part, values in parts.items()
        for name in _OTHERS[part]
        if name in values
    }


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(_plain, value)) or "all"
    return value if isinstance(value, str) else json.dumps(value)


class _Config:
    """Settings by part and name."""

    def __init__(self, path: Path, values: Any) -> None:
        self.path, self.values = path, values

    def text(self, part: str, name: str) -> str:
        return str(self._get(part, name, lambda value: isinstance(value, str)))

    def count(self, part: str, name: str) -> int:
        return int(self._get(part, name, lambda value: type(value) is int and 0 <= value < 2**63))

    def share(self, part: str, name: str) -> float:
        return float(self._get(part, name, lambda value: type(value) in (int, float) and math.isfinite(value)))

    def _get(self, part: str, name: str, fits: Any) -> Any:
        values = self.values
        try:
            value = (values[part] if part else values)[name]
        except (TypeError, KeyError, IndexError):
            value = None
        if value is None or not fits(value):
            raise UnreadableLogError(
                f"{self.path}, line 1: the setting {'.'.join(filter(None, (part, name)))} is {value!r}, which a run "
                "cannot have; leave the log out."
            )
        return value
