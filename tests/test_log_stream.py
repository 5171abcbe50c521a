"""The stream for people: one table from the declaration, in which nothing is mistaken for something else."""

import re

import pytest

from projected_grpo.logs import METRICS, Stream
from projected_grpo.logs.metrics import declared
from projected_grpo.logs.stream import COLUMNS, EVERY, brief, header, legend

STEP = {
    "loss": -0.0123, "reward": 0.412, "hack_student": 12 / 96, "student_completions": 96, "fired": 3, "axes": 9,
    "grad_norm_pre_clip": 12.3, "grad_norm_post_clip": 10.0,
}  # fmt: skip


def cells(line):
    return dict(zip(header().split(), line.split(), strict=True))


def test_a_row_has_a_cell_for_every_column_and_fractions_keep_their_denominators():
    _, row = Stream().lines("step", 7, STEP)
    shown = cells(row)
    assert shown == {
        **dict.fromkeys((m.heading for m in COLUMNS), "null"), "step": "7", "loss": "-0.0123", "reward": "0.412",
        "hack": "12/96", "fired": "3/9", "gn_pre_clip": "1.23e+01", "gn_post_clip": "1.00e+01",
    }  # fmt: skip


def test_cells_stand_under_their_headings():
    head, row = Stream().lines("step", 7, STEP)
    assert len(head) == len(row)
    ends = [match.end() for match in re.finditer(r"\S+", head)]
    assert [match.end() for match in re.finditer(r"\S+", row)] == ends


def test_the_header_is_repeated_now_and_then():
    stream = Stream()
    lines = [line for step in range(2 * EVERY + 1) for line in stream.lines("step", step, STEP)]
    assert [at for at, line in enumerate(lines) if line == header()] == [0, EVERY + 1, 2 * EVERY + 2]


def test_the_legend_explains_every_column_and_comes_first():
    lines = list(Stream().lines("run", 0, {"basis_separation": 5 / 6, "basis_held_out": 6}))
    assert lines[:-1] == list(legend())
    assert lines[-1] == "     0  run  V separates 5/6"
    explained = {line.split()[1]: line for line in legend()}
    for metric in COLUMNS:
        assert f"{metric.name}: " in explained[metric.heading]
        assert metric.meaning in explained[metric.heading]
    assert "null" in explained


def test_headings_of_one_event_are_distinct_words():
    for event in {metric.event for metric in METRICS}:
        headings = [metric.heading for metric in declared(event).values() if metric.heading]
        assert len(headings) == len(set(headings))
    assert not any(" " in metric.heading for metric in COLUMNS)


@pytest.mark.parametrize(
    ("event", "values", "due"),
    [
        ("evaluation", {"hack_trained": 0.25, "prompts": 16}, "     3  evaluation  hack_trained 4/16"),
        ("evaluation", {"hack_trained": 0.3, "prompts": 16}, "     3  evaluation  hack_trained 0.300"),
        ("refresh", {"accepted": False, "basis_axes": 0}, "     3  refresh  accepted False"),
        ("warning", {"text": "drift,\nrising"}, "     3  warning  drift, rising"),
    ],
)
def test_other_events_are_lines(event, values, due):
    assert list(Stream().lines(event, 3, values)) == [due]


def test_what_nobody_watches_is_not_shown():
    for event in ("checkpoint", "final", "nothing"):
        assert list(Stream().lines(event, 3, {"folder": "step-000003"})) == []
    assert list(Stream().lines("resumed", 3, {}))[-1] == "     3  resumed"


def test_a_progress_bar_has_a_few_of_them():
    assert brief(STEP) == "loss -0.0123  hack 12/96  solve null"
