"""`projected-grpo train` and `projected-grpo pool`, as a user calls them."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from projected_grpo.cli import main
from projected_grpo.logs import read

SMALL = [
    "--steps", "4", "--prompts", "3", "--group", "4", "--pairs", "4", "--k", "2", "--evaluation-prompts", "16",
    "--checkpoint-every", "2", "--evaluate-every", "2",
]  # fmt: skip


def test_a_run_prints_what_it_wrote_and_exits_0(tmp_path, capsys):
    place = tmp_path / "run"
    assert main(["train", *SMALL, "--out", str(place)]) == 0
    printed = capsys.readouterr()
    rates = json.loads((place / "report.json").read_text())["rates"]
    assert list(rates) == ["base", "trained", "deployed", "off_axes"]
    for own in rates.values():
        row = [own["hack"], own["standard_error"], own["solve"], own["format"], *own["hack_by_mode"].values()]
        assert re.search(r"\s+".join(re.escape(f"{cell:.3f}") for cell in row), printed.out)
    assert [line.split()[0] for line in printed.err.splitlines() if re.match(r" +\d+ +[-+]\d", line)] == list("1234")
    assert sum(line.split()[:2] == ["step", "loss"] for line in printed.err.splitlines()) == 1, "one header"
    assert "# gn_pre_clip   grad_norm_pre_clip: norm of the accumulated gradient" in printed.err, "and a legend"
    assert {entry.event for entry in read(place / "log.jsonl")} >= {"run", "step", "evaluation", "final"}


def test_a_preset_is_a_word_and_its_values_can_be_changed(tmp_path):
    place = tmp_path / "run"
    assert main(["train", "smoke", *SMALL, "--intervention", "erase", "--space", "update", "--out", str(place)]) == 0
    config = json.loads((place / "config.json").read_text())
    assert (config["preset"], config["routing"]["intervention"], config["routing"]["space"]) == (
        "smoke", "erase", "update",
    )  # fmt: skip
    assert config["basis"]["refresh_every"] == 10, "what was not named is the preset's"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "huge"], "There is no preset 'huge'; choose one of tiny, arithmetic, smoke, fast, full."),
        (["train", "--group", "1"], "group is 1"),
        (["train", "--model", "/nowhere"], "cannot be loaded as a causal language model"),
        (["train", "--modes", "exit_code"], "exit_code"),
        (["train", "--modes", "blank"], "no prompt for the mode 'blank'; it knows run_tests"),
        (["train", "arithmetic", "--modes", "sentinel"], "it knows stated_check, equal_sides, blank, circular."),
        (["train", "--task", "arithmetic"], "testbed does not speak the 27 tokens of the task arithmetic"),
        (["train", "--resume", "nowhere"], "no run that can be gone on with"),
        (["train", "--resume", "nowhere", "--steps", "3"], "leave the other options out"),
        (["train", "smoke", "--resume", "nowhere"], "leave the other options out"),
        (["train", "--lr", "nan"], "lr is nan"),
        (["train", "--pool", "nowhere.gz"], "cannot be read as a pool"),
        (["train", "--basis-from", "nowhere"], "nowhere cannot be read or written (No such file or directory); check"),
        (["train", "--clip", "joint"], "has no meaning in displacement space"),
        (["pool", "nowhere"], "no run that can be gone on with"),
        (["pool", "nowhere", "--out", "pool.txt"], "does not end in .gz"),
        (["train", "--problems", "mine.jsonl"], "add --task code"),
        (["train", "--max-new-tokens", "400"], "positions"),
        (["train", "--intervention", "none", "--no-measure", "--refresh-every", "3"], "has no basis"),
        (["pool", "nowhere", "--rollouts", "0"], "at least 1"),
        (["pool", "nowhere", "--out", "nosuch/pool.gz"], "there is no directory nosuch; make it first"),
        (["train", "smoke", "--pool", "p.jsonl.gz"], "leave out --pool, or say --no-teach-pairs"),
        (["train", "--modes", "sentinel", "--modes=run_tests"], "--modes is given twice"),
    ],
)
def test_bad_input_is_one_sentence_and_exits_2(tmp_path, monkeypatch, capsys, args, message):
    monkeypatch.chdir(tmp_path)
    assert main(args) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert message in told[0]


def test_a_run_that_diverges_says_so(tmp_path, capsys):
    assert main(["train", *SMALL, "--lr", "1e30", "--out", str(tmp_path / "far")]) == 2
    assert "it has diverged, so lower the learning rate" in capsys.readouterr().err.splitlines()[-1]


def test_nothing_is_left_of_a_run_that_was_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--model", "/nowhere", "--out", "run"]) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_refused(tmp_path, capsys):
    (tmp_path / "kept").write_text("mine")
    assert main(["train", *SMALL, "--out", str(tmp_path)]) == 2
    assert "--resume" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_a_termination_stop_after_the_step(tmp_path, capsys, number):
    place = tmp_path / "run"
    command = [Path(sys.executable).parent / "projected-grpo", "train"]
    process = subprocess.Popen(
        [*command, *SMALL, "--steps", "60", "--checkpoint-every", "50", "--out", place],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    log = place / "log.jsonl"
    while process.poll() is None and not (log.exists() and '"event": "step", "step": 3,' in log.read_text()):
        time.sleep(0.01)
    process.send_signal(number)
    told = process.communicate()[1]
    assert process.returncode == 130
    assert f"projected-grpo train --resume {place}" in told
    steps = sum(entry.event == "step" for entry in read(log))
    assert 3 <= steps < 60
    assert [path.name for path in (place / "checkpoints").iterdir()].count(f"step-{steps:06d}") == 1
    if number == signal.SIGTERM:  # once is enough
        assert main(["train", "--resume", str(place)]) == 0
        assert f": 60 of 60 steps, {steps} of them earlier, in " in capsys.readouterr().out.splitlines()[-1]


def test_a_finished_run_resumes_to_its_report(tmp_path, capsys):
    place = tmp_path / "run"
    main(["train", *SMALL, "--out", str(place)])
    first = capsys.readouterr().out.splitlines()[:-1]
    assert main(["train", "--resume", str(place)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[:-1] == first
    assert told[-1].endswith("was finished already")


def test_a_pool_of_a_run_is_written_once(tmp_path, capsys):
    place, pool = tmp_path / "run", tmp_path / "pool.jsonl.gz"
    main(["train", *SMALL, "--out", str(place)])
    capsys.readouterr()
    assert main(["pool", str(place), "--out", str(pool), "--rollouts", "50"]) == 0
    assert re.search(r"50 rollouts, \d+ passed, \d+ solved", capsys.readouterr().out)
    assert main(["pool", str(place), "--out", str(pool)]) == 2
    assert main(["train", *SMALL, "--pool", str(pool), "--out", str(tmp_path / "taught")]) == 0


def test_the_teachers_recipe_of_the_docs_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parent.parent / "docs" / "training.md").read_text().partition("## Teachers")[2]
    recipe = [line.split()[1:] for line in text.splitlines() if line.startswith("    projected-grpo")][:3]
    assert [words[0] for words in recipe] == ["train", "pool", "train"]
    for words in recipe:
        assert main([*words, *(SMALL if words[0] == "train" else ["--rollouts", "2000"])]) == 0
