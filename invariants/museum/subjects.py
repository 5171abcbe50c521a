"""Faults that are subjects: what every invariant of the capability that they have says of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from invariants.cases import orthonormal_rows
from invariants.contracts import SETTINGS
from invariants.museum.fault import FAULTS, Cell, Fault
from invariants.registry import Invariant, all_invariants
from invariants.runner import verify
from invariants.subject import Subject
from reference import Tape

MODULES = {"a": (12, 3), "without a basis": (5, 0)}  # name -> (r, k)


@dataclass(frozen=True, eq=False, kw_only=True)
class SubjectFault(Fault):
    """A subject that has one capability, and the fault."""

    subject: Callable[[], Subject]

    @property
    def hall(self) -> str:
        [capability] = capabilities(self.subject())
        return capability

    def cells(self, seed: int) -> Mapping[str, Cell]:
        return cells(self.subject(), seed)


def exhibit(
    name: str,
    subject: Callable[[str], Subject],
    *,
    caught_by: str,
    bug: int | None = None,
    also: Mapping[str, str] | None = None,
) -> None:
    """Puts a fault on show; `subject` makes the broken subject from its name."""
    FAULTS.append(SubjectFault(name=name, caught_by=caught_by, subject=lambda: subject(name), bug=bug, also=also or {}))


def tape() -> Tape:
    """Four steps of noise; anew for every subject, since a broken one may write into what it is given."""
    draw = torch.Generator().manual_seed(3)
    return Tape(
        gradients={name: torch.randn(4, r, dtype=torch.float64, generator=draw) for name, (r, _) in MODULES.items()},
        basis={name: orthonormal_rows(k, r, draw) for name, (r, k) in MODULES.items()},
        start={name: torch.zeros(r, dtype=torch.float64) for name, (r, _) in MODULES.items()},
    )


def capabilities(subject: Subject) -> list[str]:
    """What the subject brings, in the order of the contracts."""
    return [capability for capability in SETTINGS if subject.settings(capability)]


def invariants_of(subject: Subject) -> list[Invariant]:
    """All invariants of what the subject brings."""
    return [invariant for invariant in all_invariants() if invariant.capability in capabilities(subject)]


def cells(subject: Subject, seed: int) -> dict[str, Cell]:
    """What every invariant of its capabilities says of a subject."""
    ids = [invariant.id for invariant in invariants_of(subject)]
    report = verify(subject, tape=tape(), seed=seed, profile="quick", only=ids, shrink=False)
    return {
        result.invariant.id: Cell(
            verdict=result.verdict,
            margin=result.worst.measured.margin if result.worst.measured else None,
            reason=result.worst.reason,
        )
        for result in report.results
    }
