"""The kill matrix: what every fault of the museum trips, over all invariants of the capability that it has."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

import torch

from invariants.cases import orthonormal_rows
from invariants.contracts import SETTINGS
from invariants.errors import SuiteError
from invariants.museum.fault import Fault
from invariants.registry import Invariant, all_invariants
from invariants.runner import verify
from invariants.subject import Subject
from invariants.verdict import Verdict
from reference import Tape

SCHEMA = "projected-grpo/kill-matrix"
SCHEMA_VERSION = 1
MODULES = {"a": (12, 3), "without a basis": (5, 0)}  # name -> (r, k)


@dataclass(frozen=True)
class Cell:
    """What one invariant said of one subject."""

    verdict: Verdict
    margin: float | None
    reason: str

    @property
    def tripped(self) -> bool:
        """Whether the invariant saw the fault."""
        return self.verdict in (Verdict.VIOLATED, Verdict.ERROR)


@dataclass(frozen=True)
class Row:
    """One fault, by the ids of the invariants that had a look at it."""

    fault: Fault
    capability: str
    cells: Mapping[str, Cell]

    @property
    def trips(self) -> list[str]:
        """What it trips, in the order of the registry."""
        return [id for id, cell in self.cells.items() if cell.tripped]


@dataclass(frozen=True)
class KillMatrix:
    """A row for every fault, and the row of the correct subject, which must trip nothing."""

    rows: tuple[Row, ...]
    correct: Mapping[str, Cell]

    @property
    def trips(self) -> dict[str, list[str]]:
        """fault -> the ids that it trips, sorted; what is pinned."""
        return {row.fault.name: sorted(row.trips) for row in self.rows}

    @property
    def halls(self) -> dict[str, list[Row]]:
        """The rows by capability, in the order of the contracts: the blocks that the matrix has."""
        by_capability = {
            capability: [row for row in self.rows if row.capability == capability] for capability in SETTINGS
        }
        return {capability: rows for capability, rows in by_capability.items() if rows}


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


def kill_matrix(
    faults: Iterable[Fault] | None = None,
    *,
    correct: Subject | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    progress: Callable[[str], object] | None = None,
) -> KillMatrix:
    """Runs every fault, and the subject that they are faults of.

    Args:
        faults: those to run; the museum's for None.
        correct: what they are one change away from; the museum's for None.
        seed: of the adversarial cases.
        dtype: of the tensors that the subjects are handed.
        progress: is told what comes next.
    """
    from invariants.museum import CORRECT, FAULTS  # importing the exhibits puts them on show

    shown, tell = tuple(FAULTS if faults is None else faults), progress or (lambda what: None)
    tell("the correct subject")
    unbroken = cells(replace(CORRECT if correct is None else correct, dtype=dtype), seed)
    rows = []
    for number, fault in enumerate(shown, start=1):
        tell(f"{fault.name} ({number} of {len(shown)})")
        subject = replace(fault.subject(), dtype=dtype)
        [capability] = capabilities(subject)
        rows.append(Row(fault, capability, cells(subject, seed)))
    return KillMatrix(tuple(rows), unbroken)


def as_json(trips: Mapping[str, Collection[str]]) -> dict[str, Any]:
    """What is pinned: fault -> the ids that it trips."""
    return {"schema": SCHEMA, "version": SCHEMA_VERSION, "trips": {name: sorted(ids) for name, ids in trips.items()}}


def pinned() -> dict[str, list[str]]:
    """The matrix that ships with the suite; raises SuiteError if it is missing or of another version."""
    file = files("invariants.museum") / "kill-matrix.json"
    try:
        loaded = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise SuiteError(
            f"The kill matrix that ships with the suite cannot be read ({error}); install it again."
        ) from None
    if (loaded.get("schema"), loaded.get("version")) != (SCHEMA, SCHEMA_VERSION):
        raise SuiteError(f"{file} is not a kill matrix of version {SCHEMA_VERSION}; install the suite again.")
    trips: dict[str, list[str]] = loaded["trips"]
    return trips
