"""The guide to the museum in Markdown: what is on show, what catches it, what else it trips and why, and the matrix."""

from collections.abc import Iterator

from invariants.museum.catalogue import CATALOGUE
from invariants.museum.exemplars import EXEMPLARS, HALL
from invariants.museum.gates import explanation
from invariants.museum.matrix import KillMatrix, Row
from invariants.museum.properties import NOWHERE
from invariants.verdict import Verdict

HEAD = """# The museum of known bugs

Each of these is one change away from a small correct implementation, and each must be caught by what is named for it:
an invariant or, in the hall of optimizers, a property. What else a fault trips is part of its record, with the reason.
The faults with a number are bugs that real implementations have had.

Written by `make kill-matrix`, from what was measured; `projected-grpo verify --selftest` measures it again on your
machine, with your version of torch."""
MARKS = {Verdict.HOLDS: "", Verdict.NOT_APPLICABLE: "-", Verdict.VACUOUS: "-"}


def guide(matrix: KillMatrix, picture: str) -> str:
    """The whole page; `picture` is where the matrix is shown as an image."""
    return "\n".join(
        [HEAD, "", f"![The kill matrix]({picture})", *bugs(matrix), *exhibits(matrix), *tables(matrix), ""]
    )


def bugs(matrix: KillMatrix) -> Iterator[str]:
    """The bugs that real implementations had, with the exhibits that show them."""
    yield from (
        "",
        "## Bugs that implementations have had",
        "",
        "| | bug | on show as | caught by |",
        "|--:|---|---|---|",
    )
    for number, title in CATALOGUE.items():
        shown = [row.fault for row in matrix.rows if row.fault.bug == number]
        names = "; ".join(fault.name for fault in shown)
        catchers = ", ".join(f"`{id}`" for id in dict.fromkeys(fault.caught_by for fault in shown))
        yield f"| {number} | {title} | {names} | {catchers} |"


def exhibits(matrix: KillMatrix) -> Iterator[str]:
    """Every fault, and why it trips what it trips."""
    for hall, rows in matrix.halls.items():
        yield from ("", f"## Faults of {hall}")
        yield from correct_optimizers() if hall == HALL else ()
        for row in rows:
            yield from ("", *exhibit(row))


def exhibit(row: Row) -> Iterator[str]:
    """One fault in a few lines."""
    fault = row.fault
    number = "" if fault.bug is None else f" (bug {fault.bug})"
    beside = "" if fault.beside is None else f"; one change away from {fault.beside}"
    yield f"**{fault.name}**{number}: caught by `{fault.caught_by}`{beside}."
    others = [id for id in row.trips if id != fault.caught_by]
    if others:
        yield ""
        yield from (f"- also `{id}`: {explanation(row, id) or 'nobody knows why'}" for id in others)


def correct_optimizers() -> Iterator[str]:
    """What an optimizer can be one change away from, and where its guarantees are looked at."""
    yield from ("", "What they are one change away from has all properties but those that optimizers of its kind lack.")
    for exemplar in EXEMPLARS:
        yield from ("", f"**{exemplar.name}** lacks", "")
        yield from (f"- `{id}`: {why}" for id, why in exemplar.lacks.items())
    yield from ("", "No optimizer gives these in gradient space, so they are looked at in displacement space:", "")
    yield from (f"- {name}: {why}" for name, why in NOWHERE.items())


def tables(matrix: KillMatrix) -> Iterator[str]:
    """The matrix, a table for each block."""
    yield from (
        "",
        "## The matrix",
        "",
        "**X**: what is named for the fault; x: something else that it trips; -: has nothing to say.",
    )
    for hall, rows in matrix.halls.items():
        ids = list(rows[0].cells)
        yield from ("", f"### {hall}", "")
        yield from (f"{number}. `{id}`" for number, id in enumerate(ids, start=1))
        yield from (
            "",
            f"| fault | {' | '.join(str(n) for n, _ in enumerate(ids, start=1))} |",
            f"|---|{':-:|' * len(ids)}",
        )
        yield from (f"| {row.fault.name} | {' | '.join(mark(row, id) for id in ids)} |" for row in rows)


def mark(row: Row, id: str) -> str:
    """One cell."""
    if id == row.fault.caught_by and row.cells[id].tripped:
        return "**X**"
    return MARKS.get(row.cells[id].verdict, "x")
