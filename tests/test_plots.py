"""What a plot shows, as data: which model is bold, whose mean it is, and where there is nothing."""

import json
import math
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from projected_grpo.results import LoggedRun, Settings
from projected_grpo.results.plots import Curve, NothingToPlotError, PlotData, series

TINY = Settings(preset="tiny", model="testbed", steps=4, group=16, mix=0.5)


def a_run(intervention: str = "none", seed: int = 0, *, at: float = 0.5, **other: object) -> LoggedRun:
    """Four steps, evaluated after the second and the last; every value depends on `at`."""
    steps = pl.DataFrame({
        "step": [1, 2, 3, 4],
        "hack_student": [0.1 * at, 0.2 * at, None, 0.4 * at],
        "solve_student": [0.4, 0.3, 0.2, 0.1],
        "cos_pre": [0.5 * at, 0.5, 0.5, 0.5], "cos_pre_null": [0.25] * 4,
        "grad_norm_pre_clip": [2.0 * at, 3.0, 4.0, 5.0], "grad_norm_post_clip": [1.0] * 4,
        "drift_ratio": [0.1, 0.2, 0.3, 0.4], "drift_opposition": [0.0] * 4 if intervention == "route" else [None] * 4,
    })  # fmt: skip
    evaluations = pl.DataFrame({
        "step": [2, 4],
        "hack_trained": [0.7 * at, 0.8 * at], "hack_deployed": [0.1 * at, 0.05 * at],
        "solve_trained": [0.1, 0.1], "solve_deployed": [0.4, 0.5],
        "hack_by_mode_trained": [{"sentinel": 0.7, "run_tests": 0.5}] * 2,
        "hack_by_mode_deployed": [{"sentinel": 0.1, "run_tests": 0.0}] * 2,
    })  # fmt: skip
    values = {
        "source": Path(f"runs/tiny-{intervention}-seed{seed}/log.jsonl"), "format": "jsonl-1",
        "intervention": intervention, "seed": seed, "settings": TINY, "steps": steps, "evaluations": evaluations,
        "complete": True, "space": "displacement", **other,
    }  # fmt: skip
    return LoggedRun(**values)  # type: ignore[arg-type]


def curves(data: PlotData, row: str, arm: int = 0) -> list[Curve]:
    return [curve for panel in data.arms[arm].panels if panel.row == row for curve in panel.curves]


def curve(data: PlotData, key: str, *, primary: bool = True, row: str = "rates", arm: int = 0) -> Curve:
    (found,) = [each for each in curves(data, row, arm) if (each.key, each.primary) == (key, primary)]
    return found


@pytest.mark.parametrize("key", ["hack", "solve"])
def test_routings_bold_curve_is_of_the_model_as_deployed_and_the_pale_one_as_trained(key: str) -> None:
    data = series([a_run("route")])
    bold, pale = curve(data, key), curve(data, key, primary=False)
    assert (bold.metric, bold.model, bold.on) == (f"{key}_deployed", "as deployed", "held-out prompts")
    assert (pale.metric, pale.model, pale.on) == (f"{key}_student", "as trained", "training rollouts")
    assert data.arms[0].models == "bold: as deployed; pale: as trained"


@pytest.mark.parametrize("intervention", ["none", "erase"])
def test_without_routing_the_model_as_trained_is_bold(intervention: str) -> None:
    data = series([a_run(intervention)])
    assert curve(data, "hack").metric == "hack_trained"
    assert {each.model for each in curves(data, "rates") + curves(data, "modes")} == {"as trained"}
    assert data.arms[0].models == "as trained, which is what is deployed"


def test_rollouts_are_bold_in_all_runs_of_an_arm_where_one_was_not_evaluated() -> None:
    old = a_run(seed=1, format="v3", evaluations=pl.DataFrame({"step": []}, schema={"step": pl.Int64}))
    data = series([a_run(seed=0), old])
    assert curve(data, "hack").metric == "hack_student"
    assert [each.key for each in curves(data, "rates")] == ["hack", "solve"], "no pale twin of the same curve"
    assert "none: bold is of training rollouts; not every run was evaluated on held-out prompts." in data.notes


def test_routing_that_was_never_evaluated_has_no_bold_curve() -> None:
    data = series([a_run("route", evaluations=pl.DataFrame({"step": []}, schema={"step": pl.Int64}))])
    assert {each.primary for each in curves(data, "rates")} == {False}
    assert "never evaluated as deployed" in data.arms[0].models
    assert any("no run was evaluated as deployed" in note for note in data.notes)


def test_modes_are_of_the_model_as_deployed() -> None:
    found = curves(series([a_run("route")]), "modes")
    assert [(each.key, each.mean.values) for each in found] == [
        ("hack under run_tests", (0.0, 0.0)), ("hack under sentinel", (0.1, 0.1)),
    ]  # fmt: skip


def test_the_mean_and_its_deviation_are_over_seeds() -> None:
    mean = curve(series([a_run("route", seed, at=at) for seed, at in enumerate((0.2, 0.4, 0.9))]), "hack").mean
    assert mean.steps == (2, 4)
    assert mean.n == (3, 3)
    assert mean.values == pytest.approx((0.05, 0.025))
    assert mean.std == pytest.approx((0.1 * math.sqrt(0.13), 0.05 * math.sqrt(0.13)))


def test_a_single_seed_has_no_band() -> None:
    mean = curve(series([a_run("route")]), "hack").mean
    assert mean.n == (1, 1)
    assert mean.values == pytest.approx((0.05, 0.025))
    assert mean.std == (None, None)


def test_a_step_that_only_one_of_several_seeds_has_is_no_part_of_their_mean() -> None:
    short = a_run("route", 0)
    short = replace(short, evaluations=short.evaluations.head(1))
    found = curve(series([short, a_run("route", 1)]), "hack")
    assert found.mean.n == (2, 1)
    assert found.mean.values[0] is not None
    assert found.mean.values[1] is None
    assert found.mean.std[1] is None
    assert [line.steps for line in found.lines] == [(2,), (2, 4)], "the seed's own line is drawn"


def test_a_step_that_one_of_three_seeds_lacks_is_the_mean_of_the_others() -> None:
    short = a_run("route", 0)
    short = replace(short, evaluations=short.evaluations.head(1))
    mean = curve(series([short, a_run("route", 1, at=0.2), a_run("route", 2, at=0.4)]), "hack").mean
    assert mean.n == (3, 2)
    assert mean.values[1] == pytest.approx(0.015)


def test_what_was_not_measured_is_a_gap_and_no_zero() -> None:
    data = series([a_run("route")])
    pale, bold = curve(data, "hack", primary=False), curve(data, "hack")
    assert pale.lines[0].values[2] is None
    assert pale.mean.values[2] is None
    assert pale.mean.n[2] == 0
    assert bold.lines[0].steps == (2, 4), "between evaluations there are no points"


def test_rates_of_old_formats_may_stand_in_the_rows_of_steps() -> None:
    run = a_run("route", format="v3", evaluations=pl.DataFrame({"step": []}, schema={"step": pl.Int64}))
    steps = run.steps.with_columns(pl.Series("hack_deployed", [0.1, None, None, 0.3]))
    (line,) = curve(series([replace(run, steps=steps)]), "hack").lines
    assert (line.steps, line.values) == ((1, 4), (0.1, 0.3))


def test_two_runs_of_one_seed_are_both_drawn_and_count_once() -> None:
    runs = [a_run(seed=0, at=0.2), a_run(seed=0, at=0.4, source=Path("again.jsonl")), a_run(seed=1, at=0.9)]
    data = series(runs)
    found = curve(data, "hack")
    assert len(found.lines) == 3
    assert found.mean.n == (2, 2)
    assert found.mean.values[0] == pytest.approx(0.7 * (0.3 + 0.9) / 2)
    assert "none: seed 0 was run 2 times; it counts once, with the mean of its runs." in data.notes


def test_two_runs_of_the_only_seed_have_no_band() -> None:
    found = curve(series([a_run(at=0.2), a_run(at=0.4, source=Path("again.jsonl"))]), "hack")
    assert found.mean.std == (None, None)


def test_arms_are_told_apart_and_ordered_whatever_the_order_of_the_runs() -> None:
    runs = [
        a_run("route"), a_run("route", basis="random"), a_run("erase"), a_run("none", reward="strict"), a_run("none"),
    ]  # fmt: skip
    runs = [replace(run, source=Path(f"{number}.jsonl")) for number, run in enumerate(runs)]
    data = series(runs)
    assert [arm.label for arm in data.arms] == ["none", "none, strict reward", "erase", "route", "route, random V"]
    assert series(runs[::-1]).as_json() == data.as_json()


def test_runs_of_different_configurations_share_no_panel_and_no_mean() -> None:
    longer = replace(TINY, steps=8, model="Qwen/Qwen3-4B")
    data = series([a_run(seed=0), a_run(seed=1, settings=longer)])
    assert [arm.label for arm in data.arms] == ["none, Qwen3-4B, steps 8", "none, testbed, steps 4"]
    assert [arm.seeds for arm in data.arms] == [(1,), (0,)]


def test_the_space_parts_runs_that_use_it() -> None:
    labels = [arm.label for arm in series([a_run("route"), a_run("route", 1, space="gradient"), a_run()]).arms]
    assert labels == ["none", "route, displacement space", "route, gradient space"]
    assert len(series([a_run(), a_run(seed=1, space="gradient")]).arms) == 1


def test_every_variant_of_an_arm_has_a_panel_of_its_own() -> None:
    data = series([a_run("route"), a_run("route", 1, variant=("gate no_gate", "k 2")), a_run("erase", basis="random")])
    assert [arm.label for arm in data.arms] == ["erase, random V", "route", "route, gate no_gate, k 2"]
    assert [arm.seeds for arm in data.arms] == [(0,), (0,), (1,)]


def test_steps_are_those_that_were_done_in_logs_that_begin_at_0_and_at_1() -> None:
    new = a_run()
    old = a_run(seed=1, format="v3", steps=new.steps.with_columns(pl.col("step") - 1),
                evaluations=new.evaluations.with_columns(pl.col("step") - 1))  # fmt: skip
    data = series([new, old])
    assert data.arms[0].steps == 4
    for row in ("rates", "norms"):
        for found in curves(data, row):
            assert found.lines[0].steps == found.lines[1].steps == found.mean.steps
            assert set(found.mean.n) <= {0, 2}, "no step that only one of the two has"


def test_limits_are_those_of_what_is_drawn() -> None:
    runs = [a_run("none"), a_run("route")]
    data = series(runs, {runs[1].source: 3.5})
    limits = [{panel.row: [(x.of, x.value) for x in panel.limits] for panel in arm.panels} for arm in data.arms]
    assert limits[0]["drift"] == [("drift_ratio", 2.0)]
    assert limits[1]["drift"] == [("drift_ratio", 2.0), ("drift_opposition", 0.35)]
    assert (limits[0]["norms"], limits[1]["norms"]) == ([], [("grad_norm_pre_clip", 3.5)])
    assert "none: no clip threshold is drawn; the logs name none." in data.notes


def test_rows_that_no_run_has_are_left_out_by_name() -> None:
    run = a_run("route")
    bare = replace(run, steps=run.steps.select("step", "hack_student"), evaluations=run.evaluations.select("step"))
    data = series([bare])
    assert data.rows == ("rates",)
    (note,) = [note for note in data.notes if note.startswith("Left out")]
    for name in ("hack_by_mode_deployed", "cos_pre_null", "grad_norm_pre_clip", "drift_ratio"):
        assert name in note


def test_signed_sums_of_old_formats_are_not_drawn_as_shares() -> None:
    run = a_run()
    steps = run.steps.drop("cos_pre", "cos_pre_null").with_columns(pl.lit(-0.3).alias("cos_pre_v2"))
    assert curves(series([replace(run, steps=steps)]), "cosines") == []


def test_numbers_that_are_not_finite_are_gaps_and_said() -> None:
    run = a_run()
    steps = run.steps.with_columns(pl.Series("grad_norm_pre_clip", [1.0, math.inf, math.nan, 2.0]))
    data = series([replace(run, steps=steps)])
    assert curve(data, "grad_norm_pre_clip", row="norms").lines[0].values == (1.0, None, None, 2.0)
    assert any("grad_norm_pre_clip is not finite at 2 steps" in note for note in data.notes)
    json.dumps(data.as_json(), allow_nan=False)


def test_few_seeds_of_many_are_said() -> None:
    new, old = a_run("route", 0), a_run("route", 1, evaluations=pl.DataFrame({"step": []}, schema={"step": pl.Int64}))
    assert "route: hack_deployed is known of 1 of 2 seeds." in series([new, old]).notes


def test_long_runs_are_thinned_by_means_and_it_is_said() -> None:
    count = 2500
    steps = pl.DataFrame({"step": range(1, count + 1), "hack_student": [n % 3 / 2 for n in range(count)]})
    data = series([a_run("route", steps=steps)])
    line = curve(data, "hack", primary=False).lines[0]
    assert line.steps == tuple(range(3, count + 3, 3))
    assert set(line.values[:-1]) == {0.5}, "the mean of 0, 1/2 and 1"
    assert "Of what is logged at each step, a point is the mean of 3 consecutive steps." in data.notes
    assert curve(data, "hack").lines[0].steps == (2, 4), "evaluations are as they were"


def test_sources_have_as_much_of_their_path_as_tells_them_apart() -> None:
    runs = [a_run(seed=0, source=Path("/here/a/x/log.jsonl")), a_run(seed=1, source=Path("/here/b/x/log.jsonl"))]
    assert series(runs).arms[0].sources == ("a/x/log.jsonl (seed 0, 4 steps)", "b/x/log.jsonl (seed 1, 4 steps)")


def test_incomplete_runs_and_none_at_all_are_refused() -> None:
    with pytest.raises(NothingToPlotError, match=r"log.jsonl is not complete \(2 of 4 steps\); leave it out"):
        series([a_run(complete=False, problem="2 of 4 steps")])
    with pytest.raises(NothingToPlotError, match="no complete run to draw"):
        series([])
    empty = pl.DataFrame({"step": [1]})
    with pytest.raises(NothingToPlotError, match="No run has a number"):
        series([a_run(steps=empty, evaluations=empty)])
