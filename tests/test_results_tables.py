"""Tables of runs: what is averaged with what, what is less what, and the command that prints them."""

import json
import shutil

import polars as pl
import pytest
from results_toys import ARCHIVE, V3, jsonl

from projected_grpo.cli.results import results
from projected_grpo.errors import UsageError
from projected_grpo.results import read_runs
from projected_grpo.results.bootstrap import interval
from projected_grpo.results.rendering import rendered, sections
from projected_grpo.results.tables import results_of


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
