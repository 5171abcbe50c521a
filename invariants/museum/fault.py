"""A fault: a bug by its name, the invariant that must catch it, and a subject that has it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from invariants.subject import Subject


@dataclass(frozen=True, eq=False, kw_only=True)
class Fault:
    """One exhibit.

    bug: its number in the catalogue of bugs that real implementations had (docs/museum.md); None for one of our own.
    also: the other invariants that it trips, each with the implication that explains it.
    """

    name: str
    caught_by: str
    subject: Callable[[], Subject]
    bug: int | None = None
    also: Mapping[str, str] = field(default_factory=dict)


FAULTS: list[Fault] = []
"""All exhibits, in the order of their files; filled as the files are imported."""


def exhibit(
    name: str,
    subject: Callable[[str], Subject],
    *,
    caught_by: str,
    bug: int | None = None,
    also: Mapping[str, str] | None = None,
) -> None:
    """Puts a fault on show; `subject` makes the broken subject from its name."""
    FAULTS.append(Fault(name=name, caught_by=caught_by, subject=lambda: subject(name), bug=bug, also=also or {}))
