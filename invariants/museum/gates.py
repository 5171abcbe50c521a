"""What must be true of the museum: every fault caught by name, everything that catches with a fault, every trip
understood."""

from collections.abc import Iterator, Mapping, Sequence

from invariants.implications import because
from invariants.museum.catalogue import CATALOGUE
from invariants.museum.fault import Cell
from invariants.museum.matrix import KillMatrix, Row
from invariants.museum.properties import PROPERTIES
from invariants.registry import all_invariants
from invariants.verdict import Verdict


def problems(matrix: KillMatrix, pinned: Mapping[str, Sequence[str]]) -> list[str]:
    """One sentence for everything that is wrong with the museum or with what it trips; empty if all is well."""
    return [
        *(problem for row in matrix.rows for problem in row_problems(row)),
        *changes(matrix.trips, pinned),
        *accusations(matrix.correct),
        *gaps(matrix),
    ]


def row_problems(row: Row) -> Iterator[str]:
    """Whether the fault is caught by name, and whatever else it trips is explained.

    Then the root that a report folds the row under is the one named for it, or one that the fault declares.
    """
    fault, trips = row.fault, row.trips
    if fault.caught_by not in row.cells:
        yield f"{fault.name!r} is no fault of anything that {fault.caught_by} looks at"
    elif (cell := row.cells[fault.caught_by]).verdict is not Verdict.VIOLATED:  # an error measured nothing
        yield f"{fault.name!r} is not caught by {fault.caught_by}: {cell.verdict}{cell.reason and f' ({cell.reason})'}"
    for id in trips:
        if id != fault.caught_by and explanation(row, id) is None:
            yield f"{fault.name!r} trips {id}, and neither the fault nor an implication says why"
    for id in fault.also:
        if id not in trips:
            yield f"{fault.name!r} says that it trips {id}, and it does not"


def explanation(row: Row, id: str) -> str | None:
    """Why a fault trips another invariant than the one named for it; None if nothing says so."""
    declared = row.fault.also
    if id in declared:
        return declared[id]
    known = (row.fault.caught_by, *declared)
    reasons = (because(root, id, among=row.trips) for root in known if root in row.trips)
    return next((reason for reason in reasons if reason is not None), None)


def changes(trips: Mapping[str, Sequence[str]], pinned: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Rows that are not what was pinned; nobody has understood those yet."""
    for name in [*trips, *(name for name in pinned if name not in trips)]:
        if name not in trips:
            yield f"{name!r} is pinned, and no such fault is on show"
        elif name not in pinned:
            yield f"{name!r} is not pinned"
        else:
            new, gone = sorted(set(trips[name]) - set(pinned[name])), sorted(set(pinned[name]) - set(trips[name]))
            told = [f"{what} {', '.join(ids)}" for what, ids in (("now trips", new), ("no longer trips", gone)) if ids]
            if told:
                yield f"{name!r} {' and '.join(told)}"


def accusations(correct: Mapping[str, Mapping[str, Cell]]) -> Iterator[str]:
    """Whatever judges something correct must hold, and mean something by it."""
    for name, cells in correct.items():
        for id, cell in cells.items():
            if cell.verdict is not Verdict.HOLDS:
                yield f"{name}: {id} is {cell.verdict}{cell.reason and f' ({cell.reason})'}"


def gaps(matrix: KillMatrix) -> Iterator[str]:
    """Invariants and properties that no fault is named for, and bugs of the catalogue that are not on show."""
    named = {row.fault.caught_by for row in matrix.rows}
    shown = {row.fault.bug for row in matrix.rows} - {None}
    for invariant in all_invariants():
        if invariant.id not in named:
            yield f"no fault is named for {invariant.id}"
        if invariant.id not in matrix.judged:
            yield f"the correct subject has no {invariant.capability}, which {invariant.id} needs"
    for property in PROPERTIES:
        if property not in named:
            yield f"no fault is named for {property}"
        if property not in matrix.judged:
            yield f"no correct optimizer has {property}"
    for bug, title in CATALOGUE.items():
        if bug not in shown:
            yield f"bug {bug} is not on show: {title}"
    for row in matrix.rows:
        if row.fault.bug is not None and row.fault.bug not in CATALOGUE:
            yield f"{row.fault.name!r} shows bug {row.fault.bug}, which the catalogue does not have"
