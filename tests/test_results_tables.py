"""Tables of runs: what is averaged with what, what is less what, and the command that prints them."""

import json
import shutil
from dataclasses import fields

import polars as pl
import pytest
from results_toys import ARCHIVE, V3, jsonl
from rich.console import Console

from projected_grpo.cli.results import results
from projected_grpo.errors import UsageError
from projected_grpo.results import read_runs
from projected_grpo.results.bootstrap import interval
from projected_grpo.results.rendering import rendered, sections, terminal
from projected_grpo.results.tables import results_of
from projected_grpo.training.config import BasisConfig, RoutingConfig


def made_of(folder, *runs):
    for at, run in enumerate(runs):
        jsonl(folder / str(at) / "log.jsonl", **run)
    return results_of(read_runs([folder]))


def at(value):
    return lambda step: value


def row(frame, **wanted):
    [found] = frame.filter(*(pl.col(key) == value for key, value in wanted.items())).to_dicts()
    return found


def test_a_mean_difference_is_over_seeds_that_have_both(tmp_path):
    made = made_of(
        tmp_path,
        *({"arm": "none", "seed": seed, "hack": at(0.8), "deployed": 0.75} for seed in (0, 1)),
        *({"arm": "erase", "seed": seed, "hack": at(0.1 * seed), "deployed": 0.5} for seed in (0, 1, 2, 3)),
    )
    delta = row(made.deltas, arm="erase, update space", figure="d_hack")
    assert (delta["n"], delta["seeds"]) == (2, [0, 1])
    assert delta["mean"] == pytest.approx(0.05 - 0.8)
    assert made.unpaired["seed"].to_list() == [2, 3]
    absolute = row(made.arms, arm="erase, update space", figure="hack")
    assert (absolute["n"], absolute["mean"]) == (4, pytest.approx(0.15))


def test_several_runs_of_one_seed_count_once(tmp_path):
    runs = [{"arm": "none", "seed": seed, "hack": at(value)} for seed, value in ((0, 0.2), (0, 0.4), (1, 0.9))]
    found = row(made_of(tmp_path, *runs).arms, arm="none", figure="hack")
    assert (found["mean"], found["n"]) == (pytest.approx((0.3 + 0.9) / 2), 2)


def test_controls_and_rewards_are_arms_of_their_own_and_strict_is_no_vanilla(tmp_path):
    made = made_of(
        tmp_path, {"arm": "route"}, {"arm": "route", "basis": "random"}, {"arm": "none", "reward": "strict"},
        {"arm": "none", "basis": "random"},
    )  # fmt: skip
    assert made.runs["arm"].to_list() == [
        "none", "none, strict reward", "route, update space", "route, update space, random V",
    ]  # fmt: skip
    assert made.paired["arm"].to_list() == made.runs["arm"].to_list()[1:]
    assert set(made.paired["n_vanilla"]) == {1}


ARM_SETTINGS = [
    *((name, value) for name, value in (
        ("space", "gradient"), ("clip", "after"), ("gate", "no_gate"), ("overshoot", 1.5), ("preserve_magnitude", True),
        ("basis", "random"), ("basis", "flipped"), ("pairs", 12), ("basis_from", "v.safetensors"),
        ("pairs_from", "pool.jsonl.gz"), ("detector_modes", ["sentinel", "run_tests"]), ("k", 2),
        ("relative_floor", 0.1), ("global_floor", 0.1), ("held_out", 0.5), ("refresh_every", 5), ("least_overlap", 0.5),
        ("retained", 0.5),
    )),
    ("reward", "strict"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), ARM_SETTINGS)
@pytest.mark.parametrize("arm", ["erase", "route"])
def test_every_setting_of_an_arm_makes_a_row_of_its_own_that_says_it(tmp_path, arm, name, value):
    made = made_of(tmp_path, {"arm": "none"}, {"arm": arm}, {"arm": arm, name: value})
    plain, other = made.paired["arm"].to_list()
    assert {plain, other} > {f"{arm}, update space"}
    [words] = {plain, other} - {f"{arm}, update space"}
    assert all(word in words for word in str(value).lower().strip("[]").replace("'", "").split(", "))
    assert made.arms.filter(pl.col("figure") == "hack").select("arm", "n").rows() == [
        ("none", 1), *sorted([(plain, 1), (other, 1)]),
    ]  # fmt: skip
    assert set(made.paired["n_vanilla"]) == {1}, "a control is less vanilla too"
    assert not made.notes


def test_those_are_all_settings_of_an_arm():
    names = {each.name for part in (RoutingConfig, BasisConfig) for each in fields(part)}
    assert names - {"intervention", "measure"} == {name for name, _ in ARM_SETTINGS} - {"reward"}


def test_what_the_preset_has_is_as_usual_and_so_is_what_a_log_does_not_say(tmp_path):
    made = made_of(
        tmp_path, {"refresh_every": 10, "k": 8, "preset": "smoke"}, {"preset": "smoke"}, {"gate": "one_sided"},
        {"preset": "no such preset"}, {"arm": "none", "k": 3, "gate": "no_gate", "basis": "random"},
    )  # fmt: skip
    assert set(made.runs["arm"]) == {"none", "route, update space"}


def test_runs_of_one_configuration_that_differ_otherwise_are_said_to(tmp_path, capsys):
    made = made_of(tmp_path, {"arm": "none", "lr": 0.01, "modes": []}, {"lr": 0.02, "modes": ["sentinel"]})
    name = "tiny, testbed, 6 steps, group 4, mix 0.5"
    assert made.notes == (
        f"{name}: runs differ in grpo.lr (0.01, 0.02), and are compared all the same.",
        f"{name}: runs differ in task.modes (all, sentinel), and are compared all the same.",
    )
    for format_ in ("terminal", "markdown", "csv", "json"):
        assert "runs differ in grpo.lr" in rendered(made, format_)


FAST = {"preset": "fast", "model": "Qwen/Qwen3-4B", "steps": 20, "seed": 44, "space": "gradient"}


def test_rates_of_rollouts_and_of_held_out_prompts_are_in_no_mean_and_no_difference_together(tmp_path):
    old = [V3, next(ARCHIVE.glob("*vanilla_seed44*"))]
    new = [
        jsonl(tmp_path / "none" / "log.jsonl", arm="none", hack=at(0.5), deployed=0.625, **FAST),
        jsonl(tmp_path / "route" / "log.jsonl", hack=at(0.5), deployed=0.125, **FAST),
    ]
    made = results_of(read_runs([*old, *new]))
    for arm, hack, deployed in (("route", 0.775, 0.13 - 0.775), ("route, gradient space", 0.5, 0.125 - 0.625)):
        found = row(made.paired, arm=arm)
        assert found["n_vanilla"] == 2
        assert found["d_hack"] == pytest.approx(hack - (0.775 + 0.5) / 2), "rollouts are rollouts"
        assert found["d_hack_deployed"] == pytest.approx(deployed)
    means = made.arms.filter(pl.col("arm") == "none", pl.col("figure") == "hack_deployed")
    assert dict(means.select("logs", "mean").iter_rows()) == {"text": pytest.approx(0.775), "JSONL": 0.625}
    assert "training rollouts" in made.notes[0]
    shown = rendered(made, "markdown")
    assert "| none | hack, deployed (text logs) | 0.775 |" in shown
    assert "| none | hack, deployed (JSONL logs) | 0.625 |" in shown
    assert "say different things" in shown
    table = pl.read_csv(rendered(made, "csv").encode(), infer_schema_length=None)
    [source] = table.filter(table="arm", arm="none", figure="hack_deployed", logs="JSONL")["source"]
    assert source == str(new[0])


def test_without_a_partner_of_its_kind_a_run_has_no_deployed_difference(tmp_path):
    new = jsonl(tmp_path / "log.jsonl", deployed=0.125, **FAST)
    made = results_of(read_runs([next(ARCHIVE.glob("*vanilla_seed44*")), new]))
    found = row(made.paired, arm="route, gradient space")
    assert found["d_hack"] == pytest.approx(0.5 - 0.775)
    assert found["d_hack_deployed"] is None
    assert "a difference without partner of its kind is blank" in made.notes[0]


@pytest.mark.parametrize("columns", [40, 60, 80, 160])
def test_on_a_narrow_terminal_rates_stay_in_one_piece(tmp_path, columns):
    made = made_of(tmp_path, {"arm": "none"}, {"arm": "route", "basis": "random"})
    console = Console(width=columns)
    with console.capture() as captured:
        console.print(terminal(made, columns), crop=False)
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= columns
    if columns > 40:
        assert any("0.500" in line and "0.250" in line and "0.125" in line for line in lines)


def test_other_configurations_are_no_partners(tmp_path):
    made = made_of(tmp_path, {"arm": "route"}, {"arm": "none", "group": 8}, {"arm": "none", "seed": 1})
    assert made.paired.is_empty()
    assert made.unpaired["reason"].to_list() == [
        "no complete vanilla run of seed 0 in this configuration (tiny, testbed, 6 steps, group 4, mix 0.5)"
    ]


def test_as_deployed_like_is_compared_with_like(tmp_path):
    made = made_of(
        tmp_path, {"arm": "route", "hack": at(0.9), "deployed": 0.1}, {"arm": "none", "hack": at(0.8), "deployed": 0.7}
    )
    found = row(made.paired, arm="route, update space")
    assert found["d_hack"] == pytest.approx(0.1)
    assert found["d_hack_deployed"] == pytest.approx(0.1 - 0.7)


def test_a_mean_and_a_single_seed_never_share_a_table(tmp_path):
    runs = [*({"arm": "none", "seed": seed} for seed in (0, 1, 2)), {"arm": "route", "seed": 0}]
    shown = [each for each in sections(made_of(tmp_path, *runs)) if each.title.startswith("Arms")]
    assert [{row[0] for row in each.rows} for each in shown] == [{"none"}, {"route, update space"}]
    several, single = shown
    assert {row[5] for row in several.rows} == {"3"}
    assert {(row[3], row[4], row[5]) for row in single.rows} == {("", "", "1")}


def test_an_interval_needs_three_values_and_is_the_same_each_time():
    assert interval([0.1, 0.2]) is None
    low, high = interval([0.1, 0.2, 0.6])
    assert 0.1 <= low < 0.3 < high <= 0.6
    assert interval([0.1, 0.2, 0.6]) == (low, high)
    assert interval([0.5, 0.5, 0.5]) == (0.5, 0.5)


def test_incomplete_runs_are_named_and_in_no_table(tmp_path, capsys):
    made = made_of(tmp_path, {"arm": "none"}, {"arm": "route", "ends": False})
    assert made.runs["arm"].to_list() == ["none"]
    assert made.incomplete["reason"].to_list() == ["6 of 6 steps are read, and the end of the run is missing"]
    assert results((str(tmp_path),), format_="markdown") == 1
    shown = capsys.readouterr().out
    assert "Incomplete, so in no table" in shown
    assert str(tmp_path / "1" / "log.jsonl") in shown.replace("\\", "")


def test_every_table_names_its_files(tmp_path):
    made = results_of(read_runs([ARCHIVE]))
    for section in sections(made):
        assert section.sources or section.title.startswith("Without partner")
    for format_ in ("terminal", "markdown"):
        text = rendered(made, format_).replace("\\_", "_")
        assert text.count("Made of") == 5
        assert "-0.645" in text


def test_csv_and_json_have_every_digit(tmp_path):
    made = results_of(read_runs([ARCHIVE]))
    plain = json.loads(rendered(made, "json"))
    assert [row["d_hack"] for row in plain["paired"]] == made.paired["d_hack"].to_list()
    table = pl.read_csv(rendered(made, "csv").encode(), infer_schema_length=None)
    paired = table.filter((pl.col("table") == "paired") & (pl.col("figure") == "d_hack"))
    assert paired["value"].to_list() == made.paired["d_hack"].to_list()
    assert set(table["table"]) == {"run", "arm", "paired", "delta", "unpaired"}


def test_the_command_prints_writes_and_refuses(tmp_path, capsys):
    shutil.copy(V3, tmp_path / "a.log")
    files = tuple(tmp_path / f"results{suffix}" for suffix in (".md", ".csv", ".json", ".txt"))
    assert results((str(tmp_path / "a.log"),), format_="markdown", report=files) == 0
    assert files[0].read_text() == capsys.readouterr().out
    assert all(file.stat().st_size > 200 for file in files)
    for given in ({"report": ()}, {"report": (tmp_path / "results.pdf",)}):
        with pytest.raises(UsageError, match="--report"):
            results((str(tmp_path),), **given)
    with pytest.raises(UsageError, match="There is no path"):
        results(())
