"""Experiments: what is in them, that nothing is run twice or mixed, and what the tables make of figures."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from training_toys import toy

from projected_grpo.cli import main
from projected_grpo.experiment import (
    EXPERIMENTS,
    Arm,
    Cell,
    Experiment,
    ExperimentError,
    Outcome,
    carry_out,
    figure,
    rendering,
    summary_of,
)
from projected_grpo.experiment.outcome import LIMITS
from projected_grpo.training import Trainer
from projected_grpo.training.folder import LOG, REPORT

DOCS = Path(__file__).parents[1] / "docs" / "experiments"
VANILLA = Arm(name="vanilla", changes={"routing": {"intervention": "none"}})
ROUTE = Arm(name="route", changes={"routing": {"space": "gradient"}}, against="posthoc")
POSTHOC = Arm(name="posthoc", changes={"basis": {"k": 1}}, of="vanilla")
SMALL = Experiment(name="small", question="Does it run?", base=toy(), arms=(VANILLA, ROUTE, POSTHOC), seeds=(0,))


# The catalogue


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_cell_has_a_configuration_and_a_folder_of_its_own(name):
    experiment = EXPERIMENTS[name]
    cells = [*experiment.cells()]
    assert (
        len({cell.name for cell in cells})
        == len(cells)
        == len(experiment.arms) * len(experiment.seeds) * len(experiment.warmups)
    )
    configs = [repr((experiment.config(cell), cell.arm.of, cell.warmup)) for cell in cells]
    assert len(set(configs)) == len(cells), "two arms are one"
    assert any(arm.name == "vanilla" for arm in experiment.arms)
    assert any(arm.of == "vanilla" and arm.name.startswith("posthoc") for arm in experiment.arms)


def test_the_arms_that_the_question_needs_are_there():
    arms = EXPERIMENTS["arms"].by_name
    assert {"vanilla", "erase", "route", "posthoc", "strict reward"} <= arms.keys()
    assert {f"posthoc, {kind} V" for kind in ("random", "flipped", "shuffled", "clean")} <= arms.keys()
    assert {"route, random V", "erase, random V", "erase, flipped V"} <= arms.keys()
    assert all(arm.against for arm in arms.values() if arm.name.split(",")[0] in ("erase", "route"))


def test_an_arm_that_speaks_of_no_arm_is_refused():
    with pytest.raises(ValueError, match="speaks of nothing, which is no arm"):
        replace(SMALL, arms=(VANILLA, replace(POSTHOC, of="nothing")))


def test_a_digest_changes_with_whatever_decides_a_figure():
    digests = {SMALL.digest(), replace(SMALL, seeds=(1,)).digest(), replace(SMALL, warmups=(1,)).digest(),
               replace(SMALL, arms=(VANILLA, ROUTE, replace(POSTHOC, changes={}))).digest(),
               replace(SMALL, arms=(VANILLA, replace(ROUTE, against=None), POSTHOC)).digest(),
               SMALL.shortened(3).digest()}  # fmt: skip
    assert len(digests) == 6
    assert replace(SMALL, question="Another?").digest() == SMALL.digest()


# Carrying out


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    place = tmp_path_factory.mktemp("experiment")
    told = []
    outcomes = carry_out(SMALL, place, workers=1, tell=lambda cell, there: told.append((cell.arm.name, there)))
    return place, outcomes, told


def test_cells_are_run_and_a_post_hoc_one_after_its_run(done):
    place, outcomes, told = done
    assert [each.cell.arm.name for each in outcomes] == ["vanilla", "route", "posthoc"]
    assert sorted(told) == [("posthoc", False), ("route", False), ("vanilla", False)]
    assert told.index(("vanilla", False)) < told.index(("posthoc", False))
    vanilla, route, posthoc = outcomes
    assert vanilla.rates["base"] == route.rates["base"] == posthoc.rates["base"]
    assert posthoc.rates["trained"] == vanilla.rates["trained"]
    assert route.tripped.keys() == LIMITS.keys()
    assert posthoc.tripped == {}
    assert not (place / posthoc.cell.name / LOG).exists()


def test_a_run_in_a_process_of_its_own_is_the_run_that_it_would_be_in_this_one(done):
    _, outcomes, _ = done
    with Trainer(SMALL.config(outcomes[1].cell), None) as trainer:
        assert trainer.run().plain()["rates"] == outcomes[1].rates


def test_what_is_there_is_not_run_again(done):
    place, outcomes, _ = done
    told = []
    again = carry_out(SMALL, place, workers=1, tell=lambda cell, there: told.append(there))
    assert told == [True] * 3
    assert again == outcomes


def test_a_run_that_was_interrupted_goes_on(tmp_path):
    one = replace(SMALL, arms=(VANILLA,))
    [cell] = one.cells()
    config = one.config(cell)
    config = replace(config, run=replace(config.run, out=tmp_path / cell.name))
    with Trainer.begin(config) as trainer:
        trainer.run(until=2)
    (tmp_path / "other").mkdir()
    [outcome] = carry_out(one, tmp_path, workers=1)
    with Trainer(one.config(cell), None) as trainer:
        assert trainer.run().plain()["rates"] == outcome.rates


def test_a_folder_of_another_configuration_is_refused_before_anything_is_run(done, tmp_path):
    place, _, _ = done
    with pytest.raises(ExperimentError, match="holds a run of another configuration"):
        carry_out(SMALL.shortened(3), place, workers=1)


def test_a_run_that_fails_says_which_it_was(tmp_path):
    lost = replace(SMALL, base=toy(basis={"pairs_from": tmp_path / "nothing.json"}), arms=(VANILLA,))
    with pytest.raises(ExperimentError, match=r"vanilla-warmup0-seed0 has failed: .*nothing\.json"):
        carry_out(lost, tmp_path, workers=1)


# Tables


def outcome(arm, seed, hack, solve=0.4, form=0.95, off=None, tripped=None, steps=70):
    rates = {"hack": hack, "solve": solve, "format": form, "hack_by_mode": {"sentinel": hack}}
    views = {
        "base": rates,
        "trained": rates,
        "deployed": rates,
        "off_axes": {**rates, "hack": hack if off is None else off},
    }
    cell = Cell(arm=arm, warmup=0, seed=seed)
    return Outcome(cell=cell, steps=steps, rates=views, tripped=tripped or {}, windup=None, made_with={"torch": "2"})


def summary(route, posthoc=(0.10, 0.12, 0.11)):
    three = replace(SMALL, seeds=(0, 1, 2))
    made = [outcome(VANILLA, seed, 0.8) for seed in range(3)] + list(route)
    return summary_of(three, made + [outcome(POSTHOC, seed, hack) for seed, hack in enumerate(posthoc)])


def test_differences_are_paired_and_estimates_are_what_they_are_by_hand():
    row = summary([outcome(ROUTE, seed, hack) for seed, hack in enumerate((0.02, 0.06, 0.04))]).row("route")
    assert row.hack.mean == pytest.approx(0.04)
    assert row.hack.error == pytest.approx(0.02 / 3**0.5)
    less = row.less_against["hack"]
    assert less.mean == pytest.approx(-0.07)
    assert less.low <= less.mean <= less.high
    assert less.low == pytest.approx(-0.08)
    assert row.less_control == {}


@pytest.mark.parametrize(
    ("route", "beats"),
    [
        ({"hack": 0.02}, "yes"),
        ({"hack": 0.02, "off": 0.11}, "only along V"),
        ({"hack": 0.02, "solve": 0.3}, "no"),
        ({"hack": 0.02, "form": 0.7}, "no"),
        ({"hack": 0.11}, "no"),
        ({"hack": 0.2}, "no"),
    ],
)
def test_a_claim_to_beat_the_post_hoc_projection_needs_all_of_it(route, beats):
    assert summary([outcome(ROUTE, seed, **route) for seed in range(3)]).row("route").beats == beats


def test_of_one_cell_nothing_is_claimed():
    made = summary_of(SMALL, [outcome(VANILLA, 0, 0.8), outcome(ROUTE, 0, 0.0), outcome(POSTHOC, 0, 0.1)])
    row = made.row("route")
    assert (row.beats, row.hack.error, row.less_against["hack"].low) == ("", None, None)
    assert "0.000 |" in rendering.as_markdown(made)


def test_gauges_are_counted_over_runs_that_can_drift():
    flagged = dict.fromkeys(LIMITS, 30)
    route = [
        outcome(ROUTE, 0, 0.0, solve=0.0, tripped=flagged),
        outcome(ROUTE, 1, 0.0, solve=0.0, tripped=dict.fromkeys(LIMITS)),
        outcome(ROUTE, 2, 0.1, tripped={**flagged, "drift_ratio": None}),
    ]
    ratio, opposition = summary(route).gauges
    assert (ratio.died, ratio.flagged, ratio.lived, ratio.false_alarms, ratio.steps_ahead) == (2, 1, 1, 0, 40)
    assert opposition.false_alarms == 1
    assert summary(route).row("route").alive == 1


def test_a_model_that_hacks_is_alive_and_one_without_form_is_not():
    assert outcome(ROUTE, 0, 0.8, solve=0.0).alive
    assert not outcome(ROUTE, 0, 0.8, solve=0.0, form=0.3).alive


def test_what_varies_in_two_ways_gets_a_small_table():
    table = {"normal": {"gradient": "route"}}
    made = [outcome(ROUTE, seed, 0.04, solve=0.0 if seed else 0.4, form=0.9) for seed in range(3)]
    shown = rendering.as_markdown(replace(summary(made), table=table))
    assert "|  | normal |" in shown
    assert "| gradient | 0.040 ± 0.000 / 0.133 ± 0.133, dead in 2 of 3 |" in shown
    with pytest.raises(ValueError, match="the table speaks of nothing, which is no arm"):
        replace(SMALL, table={"normal": {"gradient": "nothing"}})


def test_a_summary_is_read_back_and_drawn_to_the_same_bytes(tmp_path):
    made = [outcome(ROUTE, seed, 0.04) for seed in range(3)]
    own = summary(made)
    assert rendering.from_json(rendering.as_json(own)) == own
    assert rendering.as_markdown(rendering.from_json(rendering.as_json(own))) == rendering.as_markdown(own)
    header, *lines = rendering.as_csv(own).splitlines()
    assert len(lines) == len(own.rows)
    assert header.startswith("arm,of,against,control,hack.mean,hack.error")
    for name in ("a.svg", "b.svg", "a.png"):
        figure.draw(own, made, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.svg", "b.svg"]


# The command, and what the docs show


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nothing"], "There is no experiment 'nothing'; choose one of arms, arithmetic, spaces"),
        (["arms", "--workers", "0"], "--workers is 0; it must be at least 1."),
        (["arms", "--seeds", "1", "1"], "--seeds must be one or more different numbers, each 0 or above."),
        (["arms", "--steps", "0"], "--steps is 0; it must be at least 1."),
    ],
)
def test_bad_input_ends_in_one_sentence(args, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["experiment", *args]) == 2
    assert said in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []


def test_the_command_writes_tables_and_a_figure(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(EXPERIMENTS, "k", replace(SMALL, name="k", arms=(VANILLA, POSTHOC)))
    assert main(["experiment", "k", "--out", str(tmp_path), "--workers", "1", "--steps", "1"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"k", "k.md", "k.csv", "k.json", "k.svg"}
    assert (tmp_path / "k" / "posthoc-warmup0-seed0" / REPORT).is_file()
    assert "2 cells" in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.json")), ids=lambda path: path.stem)
def test_what_the_docs_show_is_of_the_experiments_as_they_are(path):
    """By the configurations alone; `projected-grpo experiment NAME --out docs/experiments` makes it anew."""
    shown = rendering.from_json(path.read_text())
    assert shown.digest == EXPERIMENTS[path.stem].digest()
    assert path.with_suffix(".md").read_text() == rendering.as_markdown(shown)
    assert path.with_suffix(".csv").is_file()
    assert path.with_suffix(".svg").is_file()
    assert json.loads(path.read_text())["rows"]


SHOWN = re.compile(r"<!-- of experiments/(\w+)\.md -->\n(.*?)<!-- end -->", re.DOTALL)


def test_the_tables_of_the_findings_are_those_of_the_commands():
    shown = SHOWN.findall((DOCS.parent / "findings.md").read_text())
    assert len({name for name, _ in shown}) > 3
    for name, table in shown:
        assert f"\n{table}\n" in (DOCS / f"{name}.md").read_text()


PROTOTYPES_ERROR = 0.012  # of three of its evaluations
COLUMNS = ("", ", hard", ", hard, twice the rate", ", random V")


def test_which_cells_of_the_prototypes_table_are_reproduced():
    shown = rendering.from_json((DOCS / "spaces.json").read_text())
    told = (DOCS.parent / "findings.md").read_text()
    (table,) = re.findall(r"\| routing \| normal .*\n\|---.*\n((?:\|.*\n)+)", told)
    marks = []
    for line in table.splitlines():
        rule, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        arms = [f"route, {rule}{column}" for column in COLUMNS] + [f"erase, {rule}", f"erase, {rule}, random V"]
        for arm, cell in zip(arms, cells, strict=True):
            row, text = shown.row(arm), cell.removesuffix(" =")
            if text.startswith("dead"):
                reproduced = row.alive == (1 if text == "dead in 2 of 3" else 0)
            else:
                theirs = [float(number) for number in text.split(" / ")]
                reproduced = all(
                    abs(ours.mean - number) <= 2 * math.hypot(ours.error, PROTOTYPES_ERROR)
                    for ours, number in zip((row.hack, row.solve), theirs, strict=False)
                )
            assert cell.endswith("=") == reproduced, f"{arm}: {cell}"
            marks.append(reproduced)
    assert (sum(marks), len(marks)) == (15, 36)


def test_every_arm_with_the_hacks_v_has_a_random_one_beside_it():
    for experiment in EXPERIMENTS.values():
        for arm in experiment.arms:
            config = experiment.config(Cell(arm=arm, warmup=0, seed=0))
            trains = arm.of is None and config.routing.intervention != "none"
            if (trains or arm.of is not None) and config.basis.basis == "hack":
                assert arm.control is not None, f"{experiment.name}: {arm.name}"
                control = experiment.config(Cell(arm=experiment.by_name[arm.control], warmup=0, seed=0))
                assert control.basis.basis == "random"
                assert (control.routing, control.grpo) == (config.routing, config.grpo)
