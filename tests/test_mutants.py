"""The list of surviving mutants explains changes of the code as it is, and the score is judged as it says."""

import ast
from pathlib import Path

import mutants
import pytest
from mutants import Mutant

ROOT = Path(__file__).parents[1]
EXPLAINED = mutants.explained()


def source_of(where: str) -> str:
    """The lines of a function, each stripped and all joined as in the list."""
    package, module, *path = where.split(".")
    text = (ROOT / package / f"{module}.py").read_text()
    node: ast.AST = ast.parse(text)
    for name in path:
        node = next(child for child in ast.iter_child_nodes(node) if getattr(child, "name", None) == name)
    return " ".join(line.strip() for line in text.splitlines()[node.lineno - 1 : node.end_lineno])


def test_every_explained_line_is_still_there() -> None:
    for mutant in EXPLAINED:
        assert mutant.was in source_of(mutant.where), f"{mutant.where}: run `make mutants`"
        assert mutant.was != mutant.becomes


def test_every_survivor_stands_in_the_docs_with_its_reason() -> None:
    shown = (ROOT / "docs" / "mutation.md").read_text()
    for mutant, why in EXPLAINED.items():
        assert f"- `{mutant.where}`: {mutants.code(mutant.was)} → {mutants.code(mutant.becomes)}  \n  {why}" in shown


KILLED = {Mutant("a.b.f", "", str(i)): "killed" for i in range(9)}
LOST = Mutant("a.b.f", "x + 1", "x - 1")


@pytest.mark.parametrize(
    ("found", "reasons", "told"),
    [
        (KILLED | {LOST: "survived"}, {LOST: "why"}, []),
        (KILLED | {LOST: "no tests"}, {}, ["unexplained (no tests) in a.b.f"]),
        (KILLED, {LOST: "why"}, ["explained, but no survivor in a.b.f"]),
        (dict(list(KILLED.items())[:8]) | {LOST: "survived"}, {LOST: "why"}, ["Tests notice 88.9% of all mutants"]),
        (KILLED | {LOST: "not checked"}, {LOST: "why"}, ["Not every mutant was tried"]),
        ({}, {}, ["Not every mutant was tried"]),
    ],
)
def test_what_is_wrong_with_a_run(found: dict[Mutant, str], reasons: dict[Mutant, str], told: list[str]) -> None:
    problems = list(mutants.problems(found, reasons))
    assert len(problems) == len(told)
    assert all(problem.startswith(start) for problem, start in zip(problems, told, strict=True))


def test_the_table_counts_by_module() -> None:
    lines = mutants.rows(KILLED | {LOST: "survived", Mutant("c.d.g", "", "1"): "timeout"})
    assert [line.split(" | ")[1:] for line in lines[2:]] == [
        ["10", "9", "1", "90.0% |"],
        ["1", "1", "0", "100.0% |"],
        ["11", "10", "1", "90.9% |"],
    ]
