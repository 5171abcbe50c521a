"""What a failure says, pinned byte for byte, and how failures are folded into stories."""

import functools
from dataclasses import replace

import failure_texts
import pytest

from invariants import Verdict
from invariants.failure import failure, stories
from invariants.implications import roots
from invariants.museum import FAULTS

PINNED = sorted(path.name for path in failure_texts.FOLDER.glob("*.txt"))


@functools.cache
def texts():
    return dict(failure_texts.texts())


@functools.cache
def report_of(name, only):
    fault = next(fault for fault in FAULTS if fault.name == name)
    return failure_texts.report_on(fault.subject(), only)


@pytest.mark.parametrize("name", PINNED)
def test_a_pinned_text_is_what_is_said(name):
    assert texts()[name] + "\n" == (failure_texts.FOLDER / name).read_text(), "python tests/failure_texts.py"


def test_every_text_is_pinned_and_there_are_enough_of_them():
    assert sorted(texts()) == PINNED
    assert len(PINNED) >= 14


def test_every_red_result_is_in_exactly_one_story():
    report = report_of("an axis is in the basis twice", "split")
    red = [result.invariant.id for result in report.results if not result.verdict.green]
    told = stories(report)
    assert sorted([s.result.invariant.id for s in told] + [id for s in told for id in s.explains]) == sorted(red)
    assert [s.result.invariant.id for s in told] == list(roots(red))
    assert all(reason for s in told for reason in s.explains.values())
    assert len(red) > len(told)


def test_a_story_shows_the_root_and_folds_what_it_implies():
    [story] = stories(report_of("an axis is in the basis twice", "split"))
    assert story.text.startswith("split.pythagoras: violated\n")
    assert "  explains      split.one_sided: " in story.text
    assert str(story) == story.text
    assert story.text.endswith("  again         projected-grpo verify --only split.pythagoras")


def test_a_script_that_was_written_is_named():
    report = report_of("sign of V flipped", "split.one_sided")
    [story] = stories(report, scripts={"split.one_sided": "failures/split.one_sided.py"})
    assert "  script        failures/split.one_sided.py\n  again" in story.text


def test_nothing_red_is_no_story():
    assert stories(report_of("sign of V flipped", "split.span")) == []


def test_the_setting_that_decides_is_shown_in_full_and_the_others_in_a_line():
    lines = texts()["several-settings.txt"].splitlines()
    assert sum(line.startswith("  setting ") for line in lines) == 1
    assert sum("(violated, margin " in line for line in lines) == 2


def test_a_loop_is_told_where_it_parts_from_the_specification():
    assert "  diverges      step 0, module 'a' under erase, stage split: " in texts()["optimizer.erase_match.txt"]
    assert "diverges" not in texts()["optimizer.resumption.txt"]


def test_a_loop_that_raises_while_it_is_looked_at_still_has_its_failure_told():
    report = report_of("erase has an overshoot that route has not", "optimizer.erase_match")
    [result] = report.results
    assert result.verdict is Verdict.VIOLATED

    def raising(*args, **options):
        raise RuntimeError("not again")

    example = replace(result.worst.example, trial=replace(result.worst.example.trial, factory=raising))
    broken = replace(result, settings=tuple(replace(s, example=example) for s in result.settings))
    text = failure(broken, "again")
    assert text.startswith("optimizer.erase_match: violated")
    assert "diverges" not in text
