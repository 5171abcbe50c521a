"""The preset line of a text log: which run it is of.

    I preset=fast intervention=route arm=routing model=Qwen/Qwen3-4B seed=42 steps=20 group=4 mix=0.5 out_tag=_a

It alone says which arm a run is: file names are made by hand, and warnings speak of other arms too.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from projected_grpo.results.errors import UnreadableLogError
from projected_grpo.results.run import Settings
from projected_grpo.routing import Intervention

ARMS: dict[str, Intervention] = {"vanilla": "none", "projected": "erase", "routing": "route"}
_INTERVENTIONS: dict[str, Intervention] = {"none": "none", "erase": "erase", "route": "route"}
_T = TypeVar("_T")


@dataclass(frozen=True)
class Heading:
    """What the line says."""

    intervention: Intervention
    seed: int
    steps: int
    settings: Settings


def heading_of(path: Path, number: int, cells: list[str]) -> Heading:
    """Reads the words of a preset line.

    Raises:
        UnreadableLogError: a word is no name=value, a name stands twice, a value means nothing, or two contradict.
    """
    where = f"{path}, line {number} (the preset line)"
    values: dict[str, str] = {}
    for cell in cells:
        name, mark, value = cell.partition("=")
        if not mark or not name.isidentifier() or name in values or "\ufffd" in cell:
            raise UnreadableLogError(f"{where}: {cell!r} is no name=value of its own, so it is damaged; leave it out.")
        values[name] = value
    by_arm = _known(where, "arm", ARMS, values)
    by_intervention = _known(where, "intervention", _INTERVENTIONS, values)
    intervention = by_intervention or by_arm
    if intervention is None:
        raise UnreadableLogError(f"{where}: it has neither arm= nor intervention=; leave it out.")
    if None not in (by_arm, by_intervention) and by_arm != by_intervention:
        raise UnreadableLogError(
            f"{where}: arm={values['arm']} and intervention={values['intervention']} contradict each other; "
            "leave it out."
        )
    seed, steps = (_number(where, name, values, _count) for name in ("seed", "steps"))
    if seed is None or steps is None:
        raise UnreadableLogError(f"{where}: it has no {'seed=' if seed is None else 'steps='}; leave it out.")
    if steps < 1:
        raise UnreadableLogError(f"{where}: a run of {steps} steps has no figures; leave it out.")
    settings = Settings(
        preset=values["preset"], model=values.get("model"), steps=steps,
        group=_number(where, "group", values, _count), mix=_number(where, "mix", values, _share),
    )  # fmt: skip
    return Heading(intervention, seed, steps, settings)


def _known(where: str, name: str, known: dict[str, Intervention], values: dict[str, str]) -> Intervention | None:
    value = values.get(name)
    if value is None or value in known:
        return known[value] if value is not None else None
    raise UnreadableLogError(f"{where}: {name}={value} is none of {', '.join(known)}; leave it out.")


def _number(where: str, name: str, values: dict[str, str], made: Callable[[str], _T]) -> _T | None:
    if name not in values or (values[name] == "None" and name not in ("seed", "steps")):
        return None
    try:
        return made(values[name])
    except ValueError:
        raise UnreadableLogError(
            f"{where}: {name}={values[name]} is no number that it can have; leave it out."
        ) from None


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ValueError(text)
    return int(text)


def _share(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or "_" in text:
        raise ValueError(text)
    return value
