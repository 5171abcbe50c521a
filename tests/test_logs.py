"""Lines of a log: what is declared, what is written, what a damaged one is taken for."""

import json
import math
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projected_grpo.logs import METRICS, DamagedLogError, LogWriter, UndeclaredMetricError, parse, read, truncate
from projected_grpo.logs.metrics import declared, for_people


def written(path, *steps, event="step", **values):
    with LogWriter(path) as log:
        for step in steps:
            log.write(event, step=step, **values)
    return path.read_text().splitlines()


@given(st.floats(allow_nan=True, allow_infinity=True), st.integers(0, 10**9))
def test_every_number_comes_back(loss, step):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        written(path, step, loss=loss)
        [entry] = read(path)
    found = entry.values["loss"]
    assert found == loss or (math.isnan(found) and math.isnan(loss))
    assert (entry.schema, entry.event, entry.step) == (1, "step", step)


def test_a_line_is_plain_json_that_any_reader_reads(tmp_path):
    [line] = written(tmp_path / "log.jsonl", 3, loss=0.5, teacher_share=None)
    plain = json.loads(line)
    assert {key: value for key, value in plain.items() if key != "crc32"} == {
        "schema": 1,
        "event": "step",
        "step": 3,
        "loss": 0.5,
        "teacher_share": None,
    }


@given(st.data())
def test_no_changed_byte_is_read(data):
    body = '{"schema": 1, "event": "step", "step": 3, "loss": 0.5'
    line = f'{body}, "crc32": "{zlib.crc32(body.encode()):08x}"}}'
    assert parse(line).values == {"loss": 0.5}
    at = data.draw(st.integers(0, len(line) - 1))
    other = data.draw(st.characters(min_codepoint=32, max_codepoint=126).filter(lambda c: c != line[at]))
    with pytest.raises(DamagedLogError):
        parse(line[:at] + other + line[at + 1 :])


def test_what_is_not_declared_is_not_written(tmp_path):
    path = tmp_path / "log.jsonl"
    with LogWriter(path) as log:
        for values in ({"rew_s": 1.0}, {"loss": "low"}, {"fired": 0.5}, {"loss": True}):
            with pytest.raises(UndeclaredMetricError, match=next(iter(values))):
                log.write("step", step=0, **values)
        with pytest.raises(UndeclaredMetricError):
            log.write("stop", step=0, loss=1.0)
    assert path.read_text() == ""


def test_a_piece_of_a_last_line_is_passed_over_and_any_other_is_named(tmp_path):
    path = tmp_path / "log.jsonl"
    lines = written(path, 1, 2, 3, loss=0.5)
    path.write_text("\n".join(lines)[:-5])
    assert [entry.step for entry in read(path)] == [1, 2]
    path.write_text("\n".join([lines[0], lines[1][:-5], lines[2]]) + "\n")
    with pytest.raises(DamagedLogError, match="line 2"):
        list(read(path))


def test_truncating_keeps_what_was_logged_up_to_a_step(tmp_path):
    path = tmp_path / "log.jsonl"
    lines = written(path, 0, 1, 1, 2, 3, loss=0.5)
    with path.open("a") as file:
        file.write("{half")
    truncate(path, 1)
    assert path.read_text().splitlines() == lines[:3]
    truncate(tmp_path / "none.jsonl", 1)
    assert [p.name for p in tmp_path.iterdir()] == ["log.jsonl"]


def test_every_metric_is_declared_once_and_says_what_it_is():
    places = [(metric.event, metric.name) for metric in METRICS]
    assert len(places) == len(set(places))
    for metric in METRICS:
        assert metric.meaning
        assert metric.name.isidentifier()
        assert metric.since >= 1
        assert metric.arms
        assert declared(metric.event)[metric.name] is metric


def test_people_see_what_was_measured():
    assert for_people("step", {"loss": 0.5, "reward": None, "lr": 1.0}) == "loss +0.5000"
    assert for_people("nothing", {"loss": 0.5}) == ""
