"""The kill matrix: what every fault of the museum trips, over all that looks at its hall."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from invariants.contracts import SETTINGS
from invariants.errors import SuiteError
from invariants.museum.exemplars import HALL, Exemplar
from invariants.museum.fault import Cell, Fault
from invariants.museum.subjects import cells
from invariants.museum.subjects import tape as tape  # what the matrix is measured on
from invariants.subject import Subject

SCHEMA = "projected-grpo/kill-matrix"
SCHEMA_VERSION = 1
HALLS = (*SETTINGS, HALL)


@dataclass(frozen=True)
class Row:
    """One fault, by the ids of what had a look at it."""

    fault: Fault
    cells: Mapping[str, Cell]

    @property
    def trips(self) -> list[str]:
        """What it trips, in the order in which it was looked at."""
        return [id for id, cell in self.cells.items() if cell.tripped]


@dataclass(frozen=True)
class KillMatrix:
    """A row for every fault, and one for everything correct, by name, which must trip nothing."""

    rows: tuple[Row, ...]
    correct: Mapping[str, Mapping[str, Cell]]

    @property
    def trips(self) -> dict[str, list[str]]:
        """fault -> the ids that it trips, sorted; what is pinned."""
        return {row.fault.name: sorted(row.trips) for row in self.rows}

    @property
    def halls(self) -> dict[str, list[Row]]:
        """The rows by hall, in the order of the contracts and then optimizers: the blocks that the matrix has."""
        by_hall = {hall: [row for row in self.rows if row.fault.hall == hall] for hall in HALLS}
        return {hall: rows for hall, rows in by_hall.items() if rows}

    @property
    def judged(self) -> set[str]:
        """The ids that something correct was judged by."""
        return {id for cells in self.correct.values() for id in cells}


def kill_matrix(
    faults: Iterable[Fault] | None = None,
    *,
    correct: Subject | None = None,
    exemplars: Iterable[Exemplar] | None = None,
    seed: int = 0,
    progress: Callable[[str], object] | None = None,
) -> KillMatrix:
    """Runs every fault, and what is correct.

    Args:
        faults: those to run; the museum's for None.
        correct: the subject that they are one change away from; the museum's for None.
        exemplars: the optimizers that they are one change away from; the museum's for None.
        seed: of the adversarial cases, and of the gradients that optimizers are shown.
        progress: is told what comes next.
    """
    from invariants.museum import CORRECT, EXEMPLARS, FAULTS  # importing the exhibits puts them on show

    shown, tell = tuple(FAULTS if faults is None else faults), progress or (lambda what: None)
    tell("the correct subject")
    unbroken = {"the correct subject": cells(CORRECT if correct is None else correct, seed)}
    for exemplar in EXEMPLARS if exemplars is None else exemplars:
        tell(exemplar.name)
        unbroken[exemplar.name] = exemplar.cells(seed)
    rows = []
    for number, fault in enumerate(shown, start=1):
        tell(f"{fault.name} ({number} of {len(shown)})")
        rows.append(Row(fault, fault.cells(seed)))
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
