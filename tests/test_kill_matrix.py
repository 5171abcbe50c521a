"""The kill matrix: every fault is caught by name, every other trip is understood, and the gates can fail."""

import functools
import json
import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from invariants import SuiteError, Verdict, all_invariants
from invariants.contracts import SETTINGS
from invariants.implications import IMPLIES, because, consequences, in_order, roots
from invariants.museum import CORRECT, FAULTS, SelfTest
from invariants.museum import matrix as museum_matrix
from invariants.museum.__main__ import GUIDE, PICTURE, main
from invariants.museum.fault import Cell
from invariants.museum.gates import explanation, problems
from invariants.museum.guide import guide
from invariants.museum.matrix import KillMatrix, Row, as_json, kill_matrix, pinned
from invariants.museum.picture import draw
from invariants.museum.properties import PROPERTIES

measured = functools.cache(kill_matrix)


FEW = [fault for fault in FAULTS if fault.caught_by in ("split.purity", "split.empty_basis")]


@pytest.fixture(scope="module")
def small() -> KillMatrix:
    """Two faults of the split and what is said of the correct split; enough to tamper with."""
    others = [capability for capability in SETTINGS if capability != "split"]
    return kill_matrix(FEW, correct=replace(CORRECT, **dict.fromkeys(others)), exemplars=())


@pytest.mark.long
def test_nothing_is_wrong_with_the_museum():
    assert problems(measured(), pinned()) == []


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_report_folds_a_fault_under_what_is_named_for_it_or_under_what_the_fault_declares(fault):
    [row] = [row for row in measured().rows if row.fault is fault]
    assert fault.caught_by in row.trips
    assert set(roots(row.trips)) <= {fault.caught_by, *fault.also}


@pytest.mark.long
def test_the_guide_is_current_and_shows_every_fault_and_all_that_catches_one():
    text = GUIDE.read_text()
    assert text == guide(measured(), PICTURE), "run `make kill-matrix`"
    assert all(f"**{fault.name}**" in text for fault in FAULTS)
    assert all(f"`{id}`" in text for id in (*(invariant.id for invariant in all_invariants()), *PROPERTIES))
    assert GUIDE.with_name(PICTURE).is_file()


def test_what_is_pinned_is_sorted_so_that_a_change_is_one_line():
    text = (files("invariants.museum") / "kill-matrix.json").read_text()
    assert text == json.dumps(as_json(pinned()), indent=1) + "\n"
    assert list(pinned()) == [fault.name for fault in FAULTS]


# The gates, each tampered with


def test_a_fault_that_is_not_caught_by_name(small):
    row = small.rows[0]
    elsewhere = replace(
        row, fault=replace(row.fault, caught_by="split.zero_gradient", also=dict.fromkeys(row.trips, "-"))
    )
    assert any("is not caught by split.zero_gradient: holds" in p for p in wrong(small, elsewhere))
    stranger = replace(row, fault=replace(row.fault, caught_by="clip.covers_both"))
    assert any("is no fault of anything that clip.covers_both looks at" in p for p in wrong(small, stranger))


def test_an_error_is_no_catch(small):
    row = small.rows[0]
    crashes = with_cell(row, row.fault.caught_by, Verdict.ERROR)
    assert any(f"is not caught by {row.fault.caught_by}: error" in p for p in wrong(small, crashes))


def test_a_trip_that_nothing_explains(small):
    row = with_cell(small.rows[0], "split.additivity", Verdict.VIOLATED)
    assert any("trips split.additivity, and neither the fault" in p for p in wrong(small, row))
    explained = replace(row, fault=replace(row.fault, also={"split.additivity": "because"}))
    assert not any("split.additivity, and neither" in p for p in wrong(small, explained))


def test_a_declared_trip_that_does_not_occur(small):
    row = small.rows[0]
    boastful = replace(row, fault=replace(row.fault, also={**row.fault.also, "split.zero_gradient": "because"}))
    assert any("says that it trips split.zero_gradient, and it does not" in p for p in wrong(small, boastful))


def test_a_row_that_changed(small):
    name, row = small.rows[0].fault.name, small.rows[0]
    assert any(f"{name!r} now trips split.purity" in p for p in problems(small, {**small.trips, name: []}))
    more = {**small.trips, name: [*row.trips, "split.span"]}
    assert any(f"{name!r} no longer trips split.span" in p for p in problems(small, more))
    assert any(f"{name!r} is not pinned" in p for p in problems(small, {}))
    assert any("'gone' is pinned, and no such fault" in p for p in problems(small, {**small.trips, "gone": []}))
    assert not any("trips" in p or "pinned" in p for p in problems(small, small.trips))


@pytest.mark.parametrize("verdict", [v for v in Verdict if v is not Verdict.HOLDS])
def test_something_correct_is_accused_or_not_judged(small, verdict):
    accused = {"something correct": {"split.span": Cell(verdict, None, "so it is")}}
    found = problems(replace(small, correct={**small.correct, **accused}), small.trips)
    assert [p for p in found if "correct: " in p] == [f"something correct: split.span is {verdict} (so it is)"]


def test_an_invariant_without_a_fault_and_a_bug_that_is_not_on_show(small):
    found = problems(small, small.trips)
    assert "no fault is named for split.span" in found
    assert "no fault is named for split.purity" not in found
    assert "the correct subject has no adapter, which adapter.merge needs" in found
    assert "no fault is named for conformance.separable" in found
    assert "no correct optimizer has conformance.separable" in found
    assert any(p.startswith("bug 7 is not on show: ") for p in found)
    unknown = replace(small.rows[0], fault=replace(small.rows[0].fault, bug=999))
    assert any("shows bug 999, which the catalogue does not have" in p for p in wrong(small, unknown))


def wrong(matrix: KillMatrix, row: Row) -> list[str]:
    changed = replace(matrix, rows=(row, *matrix.rows[1:]))
    return problems(changed, changed.trips)


def with_cell(row: Row, id: str, verdict: Verdict) -> Row:
    return replace(row, cells={**row.cells, id: Cell(verdict, None, "")})


# What is made from it


def test_the_same_matrix_gives_the_same_picture(small, tmp_path):
    first, second = tmp_path / "a.svg", tmp_path / "b.svg"
    draw(small, first)
    draw(small, second)
    assert first.read_bytes() == second.read_bytes()
    text = first.read_text()
    assert all(row.fault.name in text for row in small.rows)
    assert "split.span" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.svg", "b.svg"]


def test_a_broken_pin_is_said_in_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(museum_matrix, "files", lambda package: tmp_path)
    with pytest.raises(SuiteError, match=r"cannot be read \(.*\); install it again\.$"):
        pinned()
    (tmp_path / "kill-matrix.json").write_text('{"schema": "projected-grpo/kill-matrix", "version": 0}')
    with pytest.raises(SuiteError, match="is not a kill matrix of version 1"):
        pinned()


def test_a_self_test_speaks_to_people_and_to_programs():
    well = SelfTest(faults=3, invariants=2, properties=1, problems=())
    assert well.ok
    assert re.fullmatch(r"3 faults, 2 invariants, 1 properties of optimizers, torch \S+", well.lines[0])
    assert "every fault is caught" in well.lines[1]
    ill = SelfTest(faults=3, invariants=2, properties=1, problems=("'x' now trips y",))
    assert not ill.ok
    assert "'x' now trips y" in ill.lines
    assert ill.as_json()["problems"] == ["'x' now trips y"]
    assert (ill.as_json()["schema"], ill.as_json()["ok"]) == ("projected-grpo/selftest", False)


def test_the_command_says_what_changed_and_fails(monkeypatch, capsys, small):
    name = small.rows[0].fault.name
    monkeypatch.setattr("invariants.museum.__main__.kill_matrix", lambda progress: small)
    monkeypatch.setattr("invariants.museum.__main__.pinned", lambda: {**small.trips, name: []})
    assert main(["--check"]) == 1
    said = capsys.readouterr().err
    assert f"{name!r} now trips split.purity" in said
    assert f"{GUIDE} is not current; run `make kill-matrix`" in said


def test_the_command_writes_all_three_or_says_where_it_can(monkeypatch, capsys, small, tmp_path):
    for name, path in (("PINNED", tmp_path / "kill-matrix.json"), ("GUIDE", tmp_path / "docs/museum.md")):
        monkeypatch.setattr(f"invariants.museum.__main__.{name}", path)
    monkeypatch.setattr("invariants.museum.__main__.kill_matrix", lambda progress: small)
    with pytest.raises(SystemExit):
        main(["--write"])
    assert f"there is no {tmp_path / 'docs'}; run from a checkout" in capsys.readouterr().err
    (tmp_path / "docs").mkdir()
    assert main(["--write"]) == 1, "two faults leave most invariants without one"
    assert json.loads((tmp_path / "kill-matrix.json").read_text())["trips"] == small.trips
    assert (tmp_path / "docs/museum.md").read_text() == guide(small, PICTURE)
    assert (tmp_path / "docs" / PICTURE).is_file()


# Implications


def test_implications_speak_of_invariants_give_reasons_and_have_no_circle():
    known = {invariant.id for invariant in all_invariants()}
    assert IMPLIES.keys() <= known
    for root, consequences_of_root in IMPLIES.items():
        assert consequences_of_root.keys() <= known
        assert all(len(reason) > 20 and not reason.endswith(".") for reason in consequences_of_root.values())
        assert root not in consequences(root, known)
        assert not any(root in consequences(c, known) for c in consequences_of_root)


@pytest.mark.long
def test_every_implication_is_one_that_some_fault_shows():
    shown = {(a, b) for row in measured().rows for a in row.trips for b in row.trips}
    assert {(root, c) for root, falls in IMPLIES.items() for c in falls} <= shown


def test_roots_partition_what_is_red():
    red = ["split.matches_reference", "split.one_sided", "split.purity", "split.pythagoras"]
    assert roots(red) == {"split.pythagoras": ["split.one_sided", "split.matches_reference"], "split.purity": []}
    assert roots(reversed(red)) == roots(red)
    assert roots([]) == {}
    assert roots(["split.matches_reference"]) == {"split.matches_reference": []}
    everything = roots([invariant.id for invariant in all_invariants()])
    assert in_order([*everything, *(id for folded in everything.values() for id in folded)]) == in_order(
        [invariant.id for invariant in all_invariants()]
    )


def test_what_falls_by_way_of_another_falls_only_if_that_one_is_red_too(monkeypatch):
    monkeypatch.setattr("invariants.implications.IMPLIES", {"a": {"b": "one"}, "b": {"c": "two"}})
    assert roots(["a", "b", "c"]) == {"a": ["b", "c"]}
    assert roots(["a", "c"]) == {"a": [], "c": []}
    assert because("a", "c", among=["b", "c"]) == "one; two"
    assert because("a", "c", among=["c"]) is None


def test_a_circle_does_not_swallow_all_roots(monkeypatch):
    circle = {"split.span": {"split.purity": "x"}, "split.purity": {"split.span": "y"}}
    monkeypatch.setattr("invariants.implications.IMPLIES", circle)
    assert roots(["split.purity", "split.span"]) == {"split.span": ["split.purity"]}
    circle["split.one_sided"] = {"split.purity": "z"}
    assert roots(["split.purity", "split.span", "split.one_sided"]) == {
        "split.one_sided": ["split.span", "split.purity"]
    }


def test_what_is_implied_by_two_roots_goes_under_the_first():
    assert roots(["clip.takes_effect", "clip.vanilla_norm", "clip.covers_both"]) == {
        "clip.takes_effect": ["clip.covers_both"], "clip.vanilla_norm": [],
    }  # fmt: skip


@pytest.mark.long
def test_every_trip_has_its_reason_in_the_guide():
    text = GUIDE.read_text()
    for row in measured().rows:
        for id in row.trips:
            if id != row.fault.caught_by:
                assert f"- also `{id}`: {explanation(row, id)}" in text


def test_no_path_of_this_machine_is_written_down():
    assert str(Path.home()) not in GUIDE.read_text()
