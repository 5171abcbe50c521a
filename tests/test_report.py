"""What people and programs read; failure texts are pinned."""

import json
import math
import shlex

import pytest
import torch

from invariants import Subject, as_json, as_text, verify
from invariants.failure import Command, failure
from invariants.reports import head


def leaky(g, V):
    removed = V.T @ torch.relu(V @ g)
    return g - removed, 2 * removed


def report_on(split, tape, *only):
    return verify(Subject(name="mine", split=split), tape=tape, only=only or None)


def test_a_failure_tells_its_story_without_the_code(small_tape):
    report = report_on(leaky, small_tape, "split.conservation")
    (result,) = report.results
    measured = result.worst.measured
    assert failure(result, Command(spec="my.module:subject").again(report, result)) == (
        "split.conservation: violated\n"
        "  statement     kept + removed = g: the two parts add up to the gradient. (T1)\n"
        "  setting       one_sided\n"
        f"  where         {measured.where}\n"
        f"  observed      {measured.residual:.6g}, allowed {measured.bound:.6g} (margin {measured.margin:.3g})\n"
        f"  smallest      {result.worst.counterexample}\n"
        "  fails when    mass of the gradient appears or disappears in the split.\n"
        "  likely cause  removed is written before kept in place, or one of the two is scaled and the other is not.\n"
        "  again         projected-grpo verify my.module:subject --only split.conservation"
    )
    assert ", index " in measured.where
    assert result.worst.counterexample.startswith("r=1, k=1: g=")


def test_the_seed_is_part_of_the_command_that_reproduces(small_tape):
    report = verify(Subject(name="mine", split=leaky), tape=small_tape, only=["split.conservation"], seed=3)
    assert Command().again(report, report.results[0]).endswith("--only split.conservation --seed 3")


def test_the_command_makes_the_same_demands_and_can_be_pasted(small_tape):
    demands = {"expected_violations": {"split.purity": "it's known"}, "required": ["split.additivity", "split.purity"]}
    report = verify(Subject(name="mine", split=leaky), tape=small_tape, only=["split"], **demands)
    command = Command(
        spec="my module:subject",
        tape="a tape",
        expect=(("split.purity", "it's known"), ("known ones.toml",)),
        require=("split.additivity", "split.purity"),
    )
    again = {result.invariant.id: command.again(report, result) for result in report.results}
    start = ["projected-grpo", "verify", "my module:subject", "--only"]
    assert shlex.split(again["split.conservation"]) == [*start, "split.conservation", "--tape", "a tape"]
    assert shlex.split(again["split.additivity"]) == [
        *start, "split.additivity", "--tape", "a tape", "--require", "split.additivity",
    ]  # fmt: skip
    assert shlex.split(again["split.purity"]) == [
        *start, "split.purity", "--tape", "a tape", "--expect", "split.purity", "it's known",
        "--expect", "known ones.toml", "--require", "split.purity",
    ]  # fmt: skip


def test_the_table_has_a_row_for_every_invariant_and_a_head_that_counts(small_tape):
    report = report_on(leaky, small_tape)
    text = as_text(report)
    assert head(report) == f"ran {report.ran} / applicable {report.applicable} / total {len(report.results)}"
    assert text.startswith(f"mine (float64): {head(report)}\n")
    for result in report.results:
        assert any(line.startswith(result.invariant.id) and str(result.verdict) in line for line in text.splitlines())
    assert "red: " in text.splitlines()[-1]


def test_a_run_in_which_nothing_applies_says_so(small_tape):
    assert "nothing was applicable" in as_text(verify(Subject(name="empty"), tape=small_tape))


def test_json_is_strict_json_with_every_number_finite_or_null(small_tape):
    def divides_by_zero(g, V):
        return g / 0.0, g / 0.0

    data = as_json(report_on(divides_by_zero, small_tape))
    again = json.loads(json.dumps(data, allow_nan=False))
    assert again == data
    assert not again["ok"]
    conservation = next(r for r in again["results"] if r["id"] == "split.conservation")
    assert conservation["verdict"] == "violated"
    assert conservation["margin"] is None


def test_json_and_report_agree(small_tape):
    report = report_on(leaky, small_tape, "split")
    data = as_json(report)
    assert (data["ran"], data["applicable"], data["total"]) == (report.ran, report.applicable, report.total)
    for row, result in zip(data["results"], report.results, strict=True):
        assert row["verdict"] == result.verdict
        measured = result.worst.measured
        expected = measured.margin if measured and math.isfinite(measured.margin) else None
        assert row["margin"] == expected


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_no_figure_is_cut_off_in_a_narrow_terminal(small_tape, width):
    text = as_text(report_on(leaky, small_tape, "split"), width=width)
    assert "…" not in text
    table = text.partition("\nsplit.conservation: violated")[0]  # the failures end in a command, which stays whole
    assert all(len(line) <= width for line in table.splitlines())
    row = next(line for line in text.splitlines() if line.startswith("split.conservation"))
    assert "violated" in row
    assert ("T1" in row) == (width >= 120)
