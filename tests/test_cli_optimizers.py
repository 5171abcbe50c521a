"""`projected-grpo optimizers`: exit codes, one sentence for bad input, and somebody's own optimizer."""

import json

import pytest

from projected_grpo.cli import main

THEIRS = """
import torch
class Mine(torch.optim.SGD):
    def __init__(self, params, lr, momentum=0.0):
        print("made")
        super().__init__(params, lr=lr, momentum=momentum)
class Refusing(torch.optim.SGD):
    def __init__(self, params):
        raise RuntimeError("not on a Monday")
number = 3
"""


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    (tmp_path / "their_optimizer.py").write_text(THEIRS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("theirs")
def test_ones_own_is_measured_with_its_arguments(capsys):
    arguments = ["optimizers", "their_optimizer:Mine", "--kwargs", '{"lr": 0.1, "momentum": 0.9}']
    assert main([*arguments, "--require", "keeps_sum", "resumes"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("ran 1 / known 1")
    assert "made" not in out
    assert "measured, with keeps_sum, resumes: ran 1 / known 1" in out
    assert "routed step agrees" in out


@pytest.mark.usefixtures("theirs")
def test_what_is_required_and_not_there_exits_1(capsys):
    assert main(["optimizers", "AdamW", "--require", "keeps_sum"]) == 1
    out = capsys.readouterr().out
    assert "AdamW: keeps_sum@gradient is demanded, and is violated" in out
    assert main(["optimizers", "AdamW", "--require", "keeps_sum@update", "erase_match"]) == 0


@pytest.mark.usefixtures("theirs")
def test_what_did_not_run_exits_1_with_its_reason(capsys):
    assert main(["optimizers", "their_optimizer:Refusing"]) == 1
    assert "not on a Monday" in capsys.readouterr().out


def test_json_and_files(theirs, capsys):
    files = ["a.json", "a.md", "a.txt", "a.svg"]
    assert main(["optimizers", "SGD", "--kwargs", '{"lr": 0.1}', "--json", "--reference", "--report", *files]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["schema"] == "projected-grpo/optimizers"
    assert data["optimizers"][0]["arguments"] == {"lr": 0.1}
    assert data["optimizers"][0]["spaces"]["update"]["routed_step"]["answer"] == "holds"
    assert data["against_reference"]
    assert json.loads((theirs / "a.json").read_text()) == data
    assert all((theirs / name).stat().st_size > 1000 for name in files)


@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["NoSuch"], "has an optimizer 'NoSuch'"),
        (["their_optimizer:None"], "has no 'None'"),
        (["their_optimizer:number"], "is of type int, and makes no optimizer"),
        (["AdamW", "--kwargs", "lr=3"], "is no JSON"),
        (["AdamW", "--kwargs", "[3]"], "is no JSON object"),
        (["AdamW", "SGD", "--kwargs", "{}"], "--kwargs is for one optimizer, and 2 are to be measured"),
        (["AdamW", "--all"], "leave out AdamW"),
        (["AdamW", "--require", "nothing"], "Nothing is called 'nothing'"),
        (["AdamW", "--require", "separable@update"], "Nothing is called 'separable@update'"),
        (["AdamW", "--json", "--format", "markdown"], "contradict each other"),
        (["AdamW", "--report", "a.xml"], "does not say its format"),
        (["AdamW", "--report", "nowhere/a.md"], "make it first"),
        (["AdamW", "--report"], "--report names no file"),
        (["AdamW", "--device", "mars"], "--device is where --reference compares"),
        (["AdamW", "--device", "mars", "--reference"], "--device 'mars'"),
        (["AdamW", "--seed", "-1"], "--seed must be"),
        (["their_optimizer:Mine"], "Mine must be passed lr; add --kwargs '{\"lr\": 0.01}'."),
        (
            ["AdamW", "--require", "a", "--require", "b"],
            "--require is given twice; give it once, with all of its values",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, words, capsys):
    assert main(["optimizers", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert captured.err.startswith("projected-grpo: ")
    assert captured.err.count("\n") == 1
