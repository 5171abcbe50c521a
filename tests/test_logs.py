"""Lines of a log: what is declared, what is written, what a damaged one is taken for."""

import json
import math
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from results_toys import logged

from projected_grpo.logs import (
    METRICS,
    DamagedLogError,
    LogWriter,
    UndeclaredMetricError,
    parse,
    parse_all,
    read,
    recover,
    truncate,
)
from projected_grpo.logs.metrics import EVENTS, declared


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
    assert (entry.schema, entry.event, entry.step) == (2, "step", step)


def test_a_line_is_plain_json_with_every_metric_in_its_order(tmp_path):
    [line] = written(tmp_path / "log.jsonl", 3, teacher_share=None, loss=0.5)
    plain = json.loads(line)
    assert list(plain) == ["schema", "event", "step", *declared("step"), "line", "crc32"]
    assert {key: value for key, value in plain.items() if value is not None and key != "crc32"} == {
        "schema": 2,
        "event": "step",
        "step": 3,
        "loss": 0.5,
        "line": 1,
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OF_KIND = {
    "float": st.floats() | st.integers(), "int": st.integers(), "str": st.text(), "bool": st.booleans(),
    "object": JSON.filter(lambda value: isinstance(value, dict | list)),
}  # fmt: skip


@st.composite
def runs(draw):
    """Any legal run: events of every kind, whose values are of their declared type or None."""
    arm = draw(st.sampled_from(["none", "erase", "route"]))
    entries = []
    events = draw(st.lists(st.sampled_from([event for event in EVENTS if event != "final"]), min_size=1, max_size=4))
    for step, event in enumerate([*events, *draw(st.sampled_from([[], ["final"]]))]):
        values = {
            name: draw(st.none() | OF_KIND[metric.kind]) if arm in metric.arms else None
            for name, metric in declared(event).items()
        }
        entries.append((event, step, values))
    return arm, entries


def same(a, b):
    """Equal, with NaN equal to itself and 0.0 no integer."""
    return repr(a) == repr(b)


def told(entries):
    return [(entry.event, entry.step, entry.values) for entry in entries]


@given(runs())
def test_what_is_written_is_read_for_any_legal_run(run):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        text = logged(path, *run)
        assert same(told(read(path)), run[1])
        recovered = recover(path)
    assert same(told(recovered.entries), run[1])
    assert recovered.complete == (run[1][-1][0] == "final")
    assert text.count(b"\n") == len(run[1])


@st.composite
def damages(draw, text):
    """The bytes of a log after something has happened to them."""
    kind = draw(st.sampled_from(["byte", "cut", "insert", "delete", "hole", "line lost", "line twice", "swapped"]))
    at = draw(st.integers(0, len(text) - 1))
    lines = text.splitlines(keepends=True)
    n = draw(st.integers(0, len(lines) - 1))
    if kind == "byte":
        return text[:at] + bytes([text[at] ^ draw(st.integers(1, 255))]) + text[at + 1 :]
    if kind == "cut":
        return text[:at]
    if kind == "insert":
        return text[:at] + draw(st.binary(min_size=1, max_size=4)) + text[at:]
    if kind in ("delete", "hole"):
        until = draw(st.integers(at + 1, len(text)))
        return text[:at] + (b"" if kind == "delete" else b"\0" * (until - at)) + text[until:]
    if kind == "line lost":
        return b"".join(lines[:n] + lines[n + 1 :])
    if kind == "line twice":
        return b"".join([*lines[: n + 1], *lines[n:]])
    return b"".join([*lines[n:], *lines[:n]])


@given(runs(), st.data())
def test_damage_leaves_a_prefix_that_is_marked_incomplete_and_never_a_wrong_number(run, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        text = logged(path, *run)
        damaged = data.draw(damages(text))
        path.write_bytes(damaged)
        try:
            found = told(read(path))
        except DamagedLogError as error:
            assert "line" in str(error)  # noqa: PT017  (both ends are right)
            found = []
    assert same(found, run[1][: len(found)])
    recovered = parse_all(damaged)
    kept = told(recovered.entries)
    assert same(kept, run[1][: len(kept)])
    assert not recovered.complete or same(kept, run[1])
    assert recovered.complete == (recovered.problem == "")


@given(st.data())
def test_no_changed_byte_is_read(data):
    body = '{"schema": 1, "line": 1, "event": "step", "step": 3, "loss": 0.5'
    line = f'{body}, "crc32": "{zlib.crc32(body.encode()):08x}"}}'
    assert parse(line).values == {"loss": 0.5}
    at = data.draw(st.integers(0, len(line) - 1))
    other = data.draw(st.characters(min_codepoint=32, max_codepoint=126).filter(lambda c: c != line[at]))
    with pytest.raises(DamagedLogError):
        parse(line[:at] + other + line[at + 1 :])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"schema": 3, "line": 1, "event": "step", "step": 3', "reads up to 2"),
        ('{"schema": 1, "line": 1, "event": "step", "step": 3, "rew_s": 0.5', "rew_s, which no declaration of step"),
        ('{"schema": 1, "line": 1, "event": "stop", "step": 3, "loss": 0.5', "loss, which no declaration of stop"),
        ('{"schema": 1, "line": 1, "event": "step", "step": 3, "loss": "low"', "its loss of step is not of the type"),
        ('{"schema": 1, "event": "step", "step": 3', "no line of a log"),
        ("[1", "no line of a log"),
    ],
)
def test_a_whole_line_that_this_version_does_not_know_is_no_guess(body, said):
    with pytest.raises(DamagedLogError, match=said):
        parse(f'{body}, "crc32": "{zlib.crc32(body.encode()):08x}"}}')


def test_what_is_not_declared_is_not_written(tmp_path):
    path = tmp_path / "log.jsonl"
    with LogWriter(path) as log:
        for values in ({"rew_s": 1.0}, {"loss": "low"}, {"fired": 0.5}, {"loss": True}):
            with pytest.raises(UndeclaredMetricError, match=next(iter(values))):
                log.write("step", step=0, **values)
        with pytest.raises(UndeclaredMetricError):
            log.write("stop", step=0, loss=1.0)
        with pytest.raises(UndeclaredMetricError, match="'stop'"):
            log.write("stop", step=0)
    assert path.read_text() == ""


def test_what_is_not_defined_in_an_arm_is_null_in_it_and_never_0(tmp_path):
    path = tmp_path / "log.jsonl"
    with LogWriter(path, arm="erase") as log:
        with pytest.raises(UndeclaredMetricError, match="quarantine_norm of step is not defined in the arm erase"):
            log.write("step", step=1, quarantine_norm=0.0)
        log.write("step", step=1, quarantine_norm=None)
    assert '"quarantine_norm": null' in path.read_text()


def test_a_piece_of_a_last_line_is_passed_over_and_any_other_is_named(tmp_path):
    path = tmp_path / "log.jsonl"
    lines = written(path, 1, 2, 3, loss=0.5)
    path.write_text("\n".join(lines)[:-5])
    assert [entry.step for entry in read(path)] == [1, 2]
    path.write_text("\n".join([lines[0], lines[1][:-5], lines[2]]) + "\n")
    with pytest.raises(DamagedLogError, match="line 2"):
        read(path)
    assert [entry.step for entry in recover(path).entries] == [1]
    path.write_text("\n".join([lines[0], lines[2]]) + "\n")
    with pytest.raises(DamagedLogError, match="line 2: it says that it is line 3"):
        read(path)


def test_a_writer_goes_on_after_the_last_whole_line(tmp_path):
    path = tmp_path / "log.jsonl"
    lines = written(path, 1, 2, loss=0.5)
    path.write_text("\n".join([*lines, lines[0][:9]]))
    written(path, 3, loss=0.5)
    assert [entry.step for entry in read(path)] == [1, 2, 3]


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


def test_what_counts_has_its_denominator_beside_it():
    for metric in METRICS:
        if metric.of:
            assert declared(metric.event)[metric.of].kind == "int"
    counted = {m.name for m in METRICS if m.unit == "share" and ("rollouts" in m.meaning or "pairs" in m.meaning)}
    assert counted - {"basis_captured"} <= {m.name for m in METRICS if m.of}
