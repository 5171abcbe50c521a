"""What the settings of a subject are called: every label once, since expectations and reports go by it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import fields, is_dataclass

from invariants.contracts import Setting


def labels(settings: Iterable[Setting]) -> dict[Setting, str]:
    """Each setting with its label; where several have the same one, the fields in which they differ are named too."""
    alike: dict[str, list[Setting]] = {}
    for setting in settings:
        alike.setdefault(setting.label, []).append(setting)
    named = {setting: _told_apart(setting, group) for group in alike.values() for setting in group}
    seen: Counter[str] = Counter()
    for setting, label in named.items():
        seen[label] += 1
        if seen[label] > 1:  # they differ in what has no short name, such as which ids they claim
            named[setting] = f"{label} #{seen[label]}"
    return named


def _told_apart(setting: Setting, group: list[Setting]) -> str:
    differing = [f.name for f in fields(setting) if len({_shown(getattr(other, f.name)) for other in group}) > 1]
    values = ", ".join(f"{name}={_shown(getattr(setting, name))}" for name in differing)
    return f"{setting.label} [{values}]" if values else setting.label


def _shown(value: object) -> str:
    """A value of a setting in a few characters, the same ones in every process."""
    if isinstance(value, frozenset):
        return f"{len(value)} ids"
    if value is None or isinstance(value, str | int | float | tuple) or is_dataclass(value):
        return str(value)
    return type(value).__name__
