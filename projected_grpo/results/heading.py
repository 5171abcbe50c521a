"""The preset line of a text log: which run it is of.

    I preset=fast intervention=route arm=routing model=Qwen/Qwen3-4B seed=42 steps=20 group=4 mix=0.5 out_tag=_a

It alone says which arm a run is: file names are made by hand, and warnings speak of other arms too. What the log says
of the same facts elsewhere must not contradict it, for then one of the two is damaged.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from projected_grpo.results.errors import UnreadableLogError
from projected_grpo.results.run import Settings
from projected_grpo.routing import Intervention

ARMS: dict[str, Intervention] = {"vanilla": "none", "projected": "erase", "routing": "route"}
_INTERVENTIONS: dict[str, Intervention] = {"none": "none", "erase": "erase", "route": "route"}
_NEEDED = ("preset", "model", "seed", "steps", "group", "mix")  # beside arm or intervention; no log lacks one
_ARGUMENT = re.compile(r"--(seed|steps|group|mix)[= ](\S+)")
_LEVEL = re.compile("[A-Z] ")
_FACTS = ("preset", "intervention", "arm", "seed", "steps", "group", "mix")
_NAMES = {*_NEEDED, *_FACTS, "out_tag"}
_SHARE = re.compile(r"[01](?:\.[0-9]+)?(?:e-[0-9]{2})?")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Heading:
    """What the line says, and its words as they stand there."""

    intervention: Intervention
    seed: int
    steps: int
    settings: Settings
    words: Mapping[str, str] = field(compare=False)


def heading_of(path: Path, number: int, cells: list[str]) -> Heading:
    """Reads the words of a preset line.

    Raises:
        UnreadableLogError: a word is no name=value, a name stands twice or is missing, a value means nothing, or two
            contradict.
    """
    where = f"{path}, line {number} (the preset line)"
    values: dict[str, str] = {}
    for cell in cells:
        name, mark, value = cell.partition("=")
        damaged = "=" in value or "\ufffd" in value or not value.isprintable()
        if not mark or not name.isidentifier() or name in values or damaged:
            raise UnreadableLogError(f"{where}: {cell!r} is no name=value of its own, so it is damaged; leave it out.")
        values[name] = value
    missing = [f"{name}=" for name in _NEEDED if not values.get(name)]
    if missing:
        raise UnreadableLogError(f"{where}: it has no {' and no '.join(missing)}; leave it out.")
    intervention = _intervention(where, values)
    seed, steps = _number(where, "seed", values, _count), _number(where, "steps", values, _count)
    group, mix = _optional(where, "group", values, _count), _optional(where, "mix", values, _share)
    if steps < 1 or group == 0:
        raise UnreadableLogError(f"{where}: a run of {steps} steps in groups of {group} has no figures; leave it out.")
    settings = Settings(preset=values["preset"], model=values["model"], steps=steps, group=group, mix=mix)
    return Heading(intervention, seed, steps, settings, values)


def goes_on(line: str) -> bool:
    """Whether a line is what was wrapped of a preset line: it has no level, and more words, the first perhaps cut."""
    words = line.split()
    names = {word.partition("=")[0] for word in words if "=" in word}
    return not _LEVEL.match(line) and all("=" in word for word in words[1:]) and not names.isdisjoint(_NAMES)


def in_arguments(message: str) -> dict[str, str]:
    """Facts of the preset line that the line of the program's arguments has too; of one given twice the last."""
    return dict(_ARGUMENT.findall(message))


def in_brackets(message: str) -> dict[str, str]:
    """Facts of the preset line that the line of the main metric ends with: [arm=vanilla preset=fast steps=20]."""
    words = (word.partition("=") for word in message.partition("[")[2].partition("]")[0].split())
    return {name: value for name, _, value in words if name in _FACTS}


def check_said(path: Path, heading: Heading, said: Iterable[tuple[int, Mapping[str, str]]]) -> None:
    """Holds what other lines say, by their numbers, against the heading.

    Raises:
        UnreadableLogError: they contradict each other.
    """
    for number, facts in said:
        for name, value in facts.items():
            own = heading.words.get(name, value)
            if value != own and (_float(value) is None or _float(value) != _float(own)):
                raise UnreadableLogError(
                    f"{path}, line {number} says {name}={value} and the preset line {name}={own}, so one of the two is "
                    "damaged; leave the log out."
                )


def _intervention(where: str, values: dict[str, str]) -> Intervention:
    by_arm = _known(where, "arm", ARMS, values)
    by_intervention = _known(where, "intervention", _INTERVENTIONS, values)
    if None not in (by_arm, by_intervention) and by_arm != by_intervention:
        raise UnreadableLogError(
            f"{where}: arm={values['arm']} and intervention={values['intervention']} contradict each other; "
            "leave it out."
        )
    intervention = by_intervention or by_arm
    if intervention is None:
        raise UnreadableLogError(f"{where}: it has neither arm= nor intervention=; leave it out.")
    return intervention


def _known(where: str, name: str, known: dict[str, Intervention], values: dict[str, str]) -> Intervention | None:
    value = values.get(name)
    if value is None or value in known:
        return known[value] if value is not None else None
    raise UnreadableLogError(f"{where}: {name}={value} is none of {', '.join(known)}; leave it out.")


def _number(where: str, name: str, values: dict[str, str], made: Callable[[str], _T]) -> _T:
    try:
        return made(values[name])
    except ValueError:
        raise UnreadableLogError(
            f"{where}: {name}={values[name]} is no number that it can have; leave it out."
        ) from None


def _optional(where: str, name: str, values: dict[str, str], made: Callable[[str], _T]) -> _T | None:
    return None if values[name] == "None" else _number(where, name, values, made)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ValueError(text)
    return int(text)


def _share(text: str) -> float:
    if not _SHARE.fullmatch(text) or float(text) > 1:
        raise ValueError(text)
    return float(text)


def _float(text: str) -> float | None:
    """A number, or None where a text is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
