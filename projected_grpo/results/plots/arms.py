"""Runs by arm: what may share a panel and a mean, what it is called, and how its files are."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from projected_grpo.results.finding import LOG
from projected_grpo.results.run import LoggedRun, Settings

INTERVENTIONS = ("none", "erase", "route")
BASES = ("hack", "random", "flipped", "shuffled", "clean")
REWARDS = ("foolable", "strict")


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs of one intervention, control, variant, reward, space and configuration, in the order of their seeds."""

    label: str
    runs: tuple[LoggedRun, ...]


def grouped(runs: Sequence[LoggedRun]) -> list[Group]:
    """Arms in a fixed order, whatever the order of the runs.

    Runs of different configurations never share a mean; where there are several, labels say what they differ in. The
    space is named where arms differ in nothing else.
    """
    found: dict[tuple[str, ...], list[LoggedRun]] = {}
    for run in sorted(runs, key=lambda run: (run.seed, run.format, str(run.source))):
        found.setdefault(_key(run), []).append(run)
    differing = [f.name for f in fields(Settings) if len({getattr(run.settings, f.name) for run in runs}) > 1]
    labels = {
        key: ", ".join([_arm(of[0]), *(_setting(name, getattr(of[0].settings, name)) for name in differing)])
        for key, of in found.items()
    }
    shared = Counter(labels.values())
    groups = []
    for key in sorted(found, key=_order):
        label = labels[key]
        if shared[label] > 1:
            label += f", {found[key][0].space or 'unknown'} space"
        groups.append(Group(label=printable(label), runs=tuple(found[key])))
    return groups


def source_names(runs: Sequence[LoggedRun]) -> dict[Path, str]:
    """For each file as few of the last parts of its path as tell it from the others."""
    names = {}
    for path in {run.source for run in runs}:
        others = [run.source.parts for run in runs if run.source != path]
        least = min(2 if path.name == LOG else 1, len(path.parts))
        for count in range(least, len(path.parts) + 1):
            name = path.parts[-count:]
            if all(other[-count:] != name for other in others):
                break
        names[path] = printable("/".join(name).replace("//", "/"))
    return names


def printable(text: str) -> str:
    """The text with a mark for whatever has no shape: a picture is XML, and file names may be anything."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _arm(run: LoggedRun) -> str:
    words = [str(run.intervention)]
    if run.basis != "hack":
        words.append(f"{run.basis} V")
    words += run.variant
    if run.reward != "foolable":
        words.append(f"{run.reward} reward")
    return ", ".join(words)


def _setting(name: str, value: object) -> str:
    if name == "model" and value is not None:
        return str(value).rsplit("/", 1)[-1]
    return str(value) if name == "preset" and value is not None else f"{name} {'?' if value is None else value}"


def _key(run: LoggedRun) -> tuple[str, ...]:
    space = "" if run.intervention == "none" else str(run.space)
    settings = (getattr(run.settings, f.name) for f in fields(Settings))
    known = (run.intervention, run.basis, run.reward, ", ".join(run.variant), space)
    return (*known, *("" if each is None else str(each) for each in settings))


def _order(key: tuple[str, ...]) -> tuple[object, ...]:
    known = (INTERVENTIONS, BASES, REWARDS)
    return (*(names.index(word) if word in names else len(names) for names, word in zip(known, key, strict=False)), key)
