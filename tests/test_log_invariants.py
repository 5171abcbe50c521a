"""logs.*: what must have been brought for a check to mean something, and answers of another shape."""

import math
from dataclasses import replace

import pytest

from invariants import Column, Delta, LogEvent, LogSetting, ReadLog, Series, Subject, Verdict, verify
from invariants.cases.logs import LAST, LogCase, logged, table
from invariants.contracts.logs import TYPICAL
from invariants.families.logs import changed, spots
from invariants.families.results import value
from invariants.museum.logbook import RELEASED, SETTING, Logbook
from invariants.trials.logs import differences, same_value

IDS = (
    "round_trip", "truncation", "damage", "reads_released", "columns_appended", "names_keep_meaning", "every_arm",
    "same_seeds", "deltas", "deployed_is_primary",
)  # fmt: skip
CORRECT = Logbook().logs()


def result(logs, id, tape, setting=SETTING):
    [found] = verify(Subject(name="mine", logs={setting: lambda: logs}), tape=tape, only=[f"logs.{id}"]).results
    return found


def verdicts(logs, tape, setting=SETTING):
    report = verify(Subject(name="mine", logs={setting: lambda: logs}), tape=tape, only=["logs"], shrink=False)
    return {r.invariant.id.removeprefix("logs."): r.verdict for r in report.results}


OPENED = {
    "write": {"round_trip", "truncation", "damage"}, "read": {"round_trip", "truncation", "damage", "reads_released"},
    "columns": {"columns_appended", "names_keep_meaning"}, "deltas": {"every_arm", "same_seeds", "deltas"},
    "series": {"deployed_is_primary"},
}  # fmt: skip


@pytest.mark.parametrize("part", OPENED)
def test_without_a_part_what_it_opens_falls_silent(part, small_tape):
    found = verdicts(replace(CORRECT, **{part: None}), small_tape)
    assert found.keys() == set(IDS)
    assert {id for id, verdict in found.items() if verdict is not Verdict.HOLDS} == OPENED[part]
    assert {found[id] for id in OPENED[part]} == {Verdict.NOT_APPLICABLE}


@pytest.mark.parametrize(
    ("id", "setting", "reason"),
    [
        ("reads_released", replace(SETTING, frozen=()), "no log of a release is handed in"),
        ("columns_appended", LogSetting(), "no columns of a release are named"),
        ("names_keep_meaning", LogSetting(), "no columns of a release are named"),
        ("damage", replace(SETTING, checked=False), "the log has no checksums"),
    ],
)
def test_what_is_not_said_of_a_log_is_not_asked_of_it(id, setting, reason, small_tape):
    found = result(CORRECT, id, small_tape, setting)
    assert (found.verdict, found.worst.reason) == (Verdict.NOT_APPLICABLE, reason)


def test_a_writer_of_any_names_is_given_typical_ones(small_tape):
    class Any(Logbook):
        columns = TYPICAL

    [report] = verify(Subject(name="any", logs=lambda: Any().logs()), tape=small_tape, only=["logs.round_trip"]).results
    assert report.verdict is Verdict.HOLDS


@pytest.mark.parametrize(
    ("id", "logs", "said"),
    [
        ("round_trip", {}, "logs must return Logs"),
        ("round_trip", replace(CORRECT, write=lambda run: "text"), "write must return bytes"),
        ("round_trip", replace(CORRECT, read=lambda text: []), "read must return ReadLog"),
        ("truncation", replace(CORRECT, read=lambda text: ReadLog(events=[1], complete=True)), "LogEvent"),
        ("reads_released", replace(CORRECT, read=lambda text: None), "read must return ReadLog"),
        ("columns_appended", replace(CORRECT, columns=lambda: ["loss"]), "columns must give Column"),
        ("every_arm", replace(CORRECT, deltas=lambda runs: [1]), "deltas must give Delta"),
        (
            "same_seeds",
            replace(CORRECT, deltas=lambda runs: [Delta(runs=("x",), against=(), view="trained", hack=None)]),
            "deltas: there is no run 'x'",
        ),
        (
            "deployed_is_primary",
            replace(CORRECT, series=lambda r: [Series(runs=("x",), view="trained", primary=True, points=())]),
            "series: there is no run 'x'",
        ),
    ],
)
def test_an_answer_of_another_shape_is_an_error(id, logs, said, small_tape):
    found = result(logs, id, small_tape)
    assert found.verdict is Verdict.ERROR
    assert said in found.worst.reason


def test_a_reader_that_refuses_whatever_is_damaged_holds_if_it_says_why(small_tape):
    def strict(error):
        def read(text):
            found = CORRECT.read(text)
            if not found.complete:
                raise error
            return found

        return replace(CORRECT, read=read)

    for id in ("truncation", "damage"):
        assert result(strict(ValueError("it was cut off")), id, small_tape).verdict is Verdict.HOLDS
        assert result(strict(ValueError()), id, small_tape).verdict is Verdict.VIOLATED


def test_a_table_without_numbers_is_no_table(small_tape):
    def nothing(runs):
        return [replace(delta, against=(), hack=None) for delta in CORRECT.deltas(runs)]

    found = verdicts(replace(CORRECT, deltas=nothing), small_tape)
    assert (found["deltas"], found["same_seeds"]) == (Verdict.VIOLATED, Verdict.VACUOUS)


def test_means_over_seeds_on_both_sides_are_differences_too(small_tape):
    def averaged(runs):
        rows = [d for d in CORRECT.deltas(runs) if d.view == "trained" and d.hack is not None]
        named = {run.name: run for run in runs}
        ours = [d for d in rows if (r := named[d.runs[0]]).intervention == "erase" and r.config == "small"]
        mean = sum(d.hack for d in ours) / len(ours)
        both = {"runs": [n for d in ours for n in d.runs], "against": [n for d in ours for n in d.against]}
        return [*CORRECT.deltas(runs), Delta(**{k: tuple(v) for k, v in both.items()}, view="trained", hack=mean)]

    found = verdicts(replace(CORRECT, deltas=averaged), small_tape)
    assert {found[id] for id in ("every_arm", "same_seeds", "deltas")} == {Verdict.HOLDS}


@pytest.mark.parametrize(
    "wrong",
    [
        lambda s: replace(s, points=tuple((step + 1, share) for step, share in s.points)),
        lambda s: replace(s, points=s.points[:-1]),
        lambda s: replace(s, primary=False),
        lambda s: replace(s, view="trained", primary=True),
        lambda s: replace(s, primary=True),
    ],
)
def test_a_plot_that_shows_something_else_is_seen(wrong, small_tape):
    def drawn(runs):
        routed = {run.name for run in runs if run.intervention == "route"}
        return [wrong(s) if s.runs[0] in routed else s for s in CORRECT.series(runs)]

    assert result(replace(CORRECT, series=drawn), "deployed_is_primary", small_tape).verdict is Verdict.VIOLATED


@pytest.mark.parametrize(
    ("columns", "violated"),
    [
        (RELEASED[:-1], {"columns_appended"}),
        ((*RELEASED[:2], RELEASED[3], RELEASED[2], *RELEASED[4:]), {"columns_appended"}),
        ((RELEASED[0], *(replace(c, unit="%") for c in RELEASED[1:])), {"names_keep_meaning"}),
        ((*RELEASED, Column(name="new")), set()),
    ],
)
def test_what_may_become_of_columns(columns, violated, small_tape):
    found = verdicts(replace(CORRECT, columns=lambda: columns), small_tape)
    assert {id for id, verdict in found.items() if verdict is Verdict.VIOLATED} == violated


# The cases


def test_runs_are_legal_and_have_what_formats_stumble_over():
    runs = [(case, case.run(RELEASED)) for case in logged(0) if case.kind == "run"]
    values = [value for _, run in runs for event in run.events for value in event.values.values()]
    assert any(value is None for value in values)
    assert any(isinstance(value, float) and not math.isfinite(value) for value in values)
    assert {case.intervention for case, _ in runs} == {"none", "erase", "route"}
    for case, run in runs:
        assert (run.events[0].event, run.events[-1].event) == ("run", "final")
        assert sum(event.event == "step" for event in run.events) == run.steps == case.steps
        deployed = [event.values["hack_deployed"] for event in run.events if event.event == "step"]
        assert run.intervention == "route" or deployed == [None] * case.steps
        assert differences(case.run(RELEASED).events, run.events) == [], "the same one every time"


def test_tables_have_what_goes_wrong():
    runs = table(0)
    vanilla = [run for run in runs if run.intervention == "none"]
    assert len({run.seed for run in vanilla}) == 3
    assert len({(run.seed, run.config) for run in vanilla}) < len(vanilla), "two of one seed"
    assert any(value(run, "trained") is None for run in vanilla), "one that was not measured in the end"
    assert {run.seed for run in runs} - {run.seed for run in vanilla}, "a seed without a partner"
    routed = [run for run in runs if run.intervention == "route"]
    assert all(None in run.hack_deployed[-LAST:] and value(run, "deployed") is not None for run in routed)


def test_shorter_runs_are_simpler():
    case = LogCase(kind="run", seed=3)
    assert [shorter.steps for shorter in case.simpler()] == [1, case.steps - 1]
    assert list(LogCase(kind="table", seed=3).simpler()) == list(replace(case, steps=1).simpler()) == []
    assert (case.told, LogCase(kind="table", seed=3).told) == ("a run of route, seed 3, 6 steps", "15 runs")


def test_a_failure_shows_a_short_run(small_tape):
    class Rounded(Logbook):
        def cell(self, value):
            return round(value, 3) if isinstance(value, float) and math.isfinite(value) else super().cell(value)

    found = result(Rounded().logs(), "round_trip", small_tape)
    assert found.worst.counterexample.startswith("a run of route, seed ")
    assert ", 1 steps" in found.worst.counterexample


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (math.nan, math.nan, True), (1, 1.0, True), (True, 1, False), (None, 0, False), (0.0, None, False),
        ("1", 1, False), ({"a": [1, None]}, {"a": [1.0, None]}, True), ({"a": 1}, {"b": 1}, False),
        ([1], [1, 2], False), (math.inf, -math.inf, False), ("x", "x", True),
    ],
)  # fmt: skip
def test_values_are_the_same_or_not(a, b, same):
    assert same_value(a, b) is same
    assert same_value(b, a) is same


def test_differences_name_the_line_and_the_value():
    due = LogEvent(event="step", step=1, values={"a": 1, "b": None})
    assert differences([replace(due, values={"a": 1})], [due]) == []
    assert differences([replace(due, values={"a": 1, "c": 2})], [due]) == ["line 0, step: c is 2 for None"]
    assert differences([replace(due, step=2)], [due]) == ["line 0: step of step 2 for step of step 1"]
    assert differences([], [due]) == ["0 lines for 1"]


def test_damage_is_done_all_over_a_log():
    text = b"first line\nsecond line\n"
    at = spots(text)
    assert {0, 9, 10, 11, 21, 22} <= set(at)
    assert all(0 <= each < len(text) for each in at)
    made = [damaged for _, damaged in changed(text)]
    assert b"second line\n" in made
    assert b"second line\nfirst line\n" in made
    assert b"first line\nfirst line\nsecond line\n" in made
    assert text[1:] in made
