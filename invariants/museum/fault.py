"""A fault: a bug by its name, what must catch it, and how it is looked at."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from invariants.verdict import Verdict


@dataclass(frozen=True)
class Cell:
    """What one invariant said of one subject, or one property of one optimizer."""

    verdict: Verdict
    margin: float | None
    reason: str

    @property
    def tripped(self) -> bool:
        """Whether it saw the fault."""
        return self.verdict in (Verdict.VIOLATED, Verdict.ERROR)


@dataclass(frozen=True, eq=False, kw_only=True)
class Fault(ABC):
    """One exhibit.

    bug: its number in the catalogue of bugs that real implementations had (docs/museum.md); None for one of our own.
    also: what else it trips, each with the implication that explains it.
    """

    name: str
    caught_by: str
    bug: int | None = None
    also: Mapping[str, str] = field(default_factory=dict)

    @property
    @abstractmethod
    def hall(self) -> str:
        """Where it is on show, beside others that are looked at in the same way."""

    @property
    def beside(self) -> str | None:
        """What it is one change away from, where its hall has more than one that is correct."""
        return None

    @abstractmethod
    def cells(self, seed: int) -> Mapping[str, Cell]:
        """What everything that looks at its hall says of it; all of a hall have the same ids in the same order."""


FAULTS: list[Fault] = []
"""All exhibits, in the order of their files; filled as the files are imported."""
