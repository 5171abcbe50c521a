"""What the project's own writer wrote is read to the bit, and damage to any of its bytes never becomes a number."""

import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from results_toys import config, jsonl, logged

from projected_grpo.logs import LogWriter
from projected_grpo.logs.metrics import declared
from projected_grpo.results import ResultsError, UnreadableLogError, read_run
from projected_grpo.results.figures import figures
from projected_grpo.results.jsonl import read_jsonl

INT = st.integers(-(2**63), 2**63 - 1)
OF_KIND = {
    "float": st.floats() | INT, "int": INT, "str": st.text(), "bool": st.booleans(),
    "object": st.dictionaries(st.text(), st.none() | st.floats() | st.integers(-(2**53), 2**53), max_size=3),
}  # fmt: skip


def values_of(draw, event, arm):
    """Values of an event, each of its declared kind or None."""
    return {
        name: draw(st.none() | OF_KIND[metric.kind])
        for name, metric in declared(event).items()
        if arm in metric.arms and event != "run"
    }


@st.composite
def legal_runs(draw):
    """A run as the trainer may write it: settings, and all entries in an order that it may write them in."""
    arm = draw(st.sampled_from(["none", "erase", "route"]))
    steps, every = draw(st.integers(1, 3)), draw(st.integers(0, 2))
    own = config(
        arm=arm, steps=steps, evaluate_every=every, seed=draw(st.integers(0, 2**63 - 1)),
        group=draw(st.integers(2, 99)), basis=draw(st.sampled_from(["hack", "random", "flipped"])),
        reward=draw(st.sampled_from(["foolable", "strict"])),
    )  # fmt: skip
    own["preset"], own["model"]["model"] = draw(st.text()), draw(st.text())
    own["teacher"]["mix"] = draw(st.floats(0, 1))
    entries = [("run", 0, {"config": own, "arm": arm})]
    for step in range(1, steps + 1):
        entries.append(("step", step, values_of(draw, "step", arm)))
        if step == steps or (every and step % every == 0):
            entries.append(("evaluation", step, values_of(draw, "evaluation", arm)))
        other = draw(st.sampled_from(["", "refresh", "warning", "resumed", "checkpoint"]))
        entries += [(other, step, values_of(draw, other, arm))] if other else []
    return arm, own, [*entries, ("final", steps, {"report": {}})]


def as_read(metric, value):
    """A value as a frame has it: whole numbers of a column of floats are floats, and modes those of all rows."""
    if metric.kind == "float" and value is not None:
        return float(value)
    if metric.kind == "object":
        return {mode: float(share) for mode, share in (value or {}).items() if share is not None}
    return value


def compared(frame, event, entries):
    """Both sides of an event's rows, NaN equal to itself and -0.0 unequal to 0.0."""
    wanted = [(step, values) for name, step, values in entries if name == event]
    found = frame.to_dicts()
    assert [row["step"] for row in found] == [step for step, _ in wanted]
    for row, (_, values) in zip(found, wanted, strict=True):
        for name, metric in declared(event).items():
            yield repr(as_read(metric, row[name])), repr(as_read(metric, values.get(name)))


def same_keys(a, b):
    return sorted(a.strip("{}").split(", ")) == sorted(b.strip("{}").split(", ")) if a[:1] == "{" else a == b


@settings(max_examples=40)
@given(legal_runs())
def test_any_legal_run_is_read_as_it_was_written(run):
    arm, own, entries = run
    with tempfile.TemporaryDirectory() as folder:
        logged(Path(folder) / "log.jsonl", arm, entries)
        found = read_run(folder)
    assert (found.complete, found.problem, found.intervention) == (True, "", arm)
    assert (found.basis, found.space, found.reward) == (own["basis"]["basis"], "update", own["task"]["reward"])
    assert (found.seed, found.settings.preset, found.settings.model) == (
        own["run"]["seed"], own["preset"], own["model"]["model"],
    )  # fmt: skip
    assert (found.settings.steps, found.settings.group) == (own["grpo"]["steps"], own["grpo"]["group"])
    assert found.settings.mix == own["teacher"]["mix"]
    for event, frame in (("step", found.steps), ("evaluation", found.evaluations)):
        for read, wrote in compared(frame, event, entries):
            assert same_keys(read, wrote)


@st.composite
def damages(draw, text):
    """The bytes of a log after something has happened to them."""
    at = draw(st.integers(0, len(text) - 1))
    kind = draw(st.sampled_from(["change", "cut", "insert", "delete", "line lost", "line twice", "lines swapped"]))
    if kind == "change":
        return text[:at] + bytes([text[at] ^ draw(st.integers(1, 255))]) + text[at + 1 :]
    if kind == "cut":
        return text[:at]
    if kind == "insert":
        return text[:at] + draw(st.binary(min_size=1, max_size=4)) + text[at:]
    if kind == "delete":
        return text[:at] + text[draw(st.integers(at + 1, len(text))) :]
    lines = text.splitlines(keepends=True)
    n = draw(st.integers(0, len(lines) - 1))
    if kind == "line lost":
        return b"".join(lines[:n] + lines[n + 1 :])
    return b"".join([*lines[: n + 1], *lines[n:]] if kind == "line twice" else [*lines[n:], *lines[:n]])


@settings(max_examples=80)
@given(legal_runs(), st.data())
def test_damage_anywhere_leaves_a_prefix_that_is_incomplete_or_an_error(run, data):
    arm, _, entries = run
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        clean = logged(path, arm, entries)
    damaged = data.draw(damages(clean))
    try:
        found = read_jsonl(path, damaged)
    except ResultsError:
        return
    whole = read_jsonl(path, clean)
    assert (found.intervention, found.seed, found.settings) == (whole.intervention, whole.seed, whole.settings)
    assert found.complete == (found.problem == "")
    for name in ("steps", "evaluations"):
        mine, other = getattr(found, name), getattr(whole, name)
        assert not found.complete or mine.height == other.height
        simple = [c for c in mine.columns if "by_mode" not in c]  # a struct has the modes of the rows that are read
        assert mine.select(simple).equals(other.select(simple).head(mine.height))


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**400])
def test_a_whole_number_that_a_frame_cannot_hold_is_damage_and_not_null(tmp_path, value):
    path = tmp_path / "log.jsonl"
    with LogWriter(path) as log:
        log.write("run", step=0, config=config(steps=1, arm="none"), arm="none")
        log.write("step", step=1, fired=value)
    found = read_run(path)
    assert not found.complete
    assert found.problem.startswith("line 2: fired is ")
    assert found.steps.height == 0


@pytest.mark.parametrize("modes", [{"sentinel": "high"}, {"sentinel": [0.5]}, {"sentinel": True}, [0.5]])
def test_modes_without_numbers_are_damage_and_not_null(tmp_path, modes):
    path = tmp_path / "log.jsonl"
    with LogWriter(path) as log:
        log.write("run", step=0, config=config(steps=1, arm="none"), arm="none")
        log.write("step", step=1)
        log.write("evaluation", step=1, hack_by_mode_trained=modes)
    assert read_run(path).problem.startswith("line 3: hack_by_mode_trained is ")


def test_a_mode_that_is_nan_is_nan_and_not_null(tmp_path):
    run = read_run(jsonl(tmp_path / "log.jsonl", deployed=math.nan))
    assert math.isnan(run.evaluations["hack_by_mode_deployed"][0]["run_tests"])


def test_a_run_without_its_preset_is_refused(tmp_path):
    own = config()
    del own["preset"]
    with LogWriter(tmp_path / "log.jsonl") as log:
        log.write("run", step=0, config=own, arm="route")
    with pytest.raises(UnreadableLogError, match="the setting preset is None"):
        read_run(tmp_path)


@pytest.mark.parametrize("steps", [1, 3, 5, 6])
def test_a_short_run_is_the_mean_of_what_it_has(tmp_path, steps):
    path = tmp_path / "log.jsonl"
    with LogWriter(path) as log:
        log.write("run", step=0, config=config(steps=steps), arm="route")
        log.write("evaluation", step=0, hack_deployed=1.0)  # before anything was learned
        for step in range(1, steps + 1):
            log.write("step", step=step, hack_student=step / 10)
        log.write("evaluation", step=steps, hack_deployed=0.25)
        log.write("final", step=steps, report={})
    run = read_run(path)
    found, last = figures(run), range(max(1, steps - 4), steps + 1)
    assert run.complete
    assert (found["hack"].value, found["hack"].n) == (pytest.approx(sum(last) / len(last) / 10), len(last))
    assert (found["hack_deployed"].value, found["hack_deployed"].n) == (0.25, 1)
