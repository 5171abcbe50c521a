"""The command line: exit codes, one sentence for bad input, and the suite that it loads."""

import json
import subprocess
import sys
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import get_args

import pytest

import reference
from invariants import StepSetting, all_invariants
from projected_grpo import SplitRule
from projected_grpo.claims import guarantees
from projected_grpo.cli import main
from projected_grpo.cli.subject import CHECKED_AS
from projected_grpo.cli.suite import ShadowedPackageError, ensure_own_suite
from projected_grpo.clip import ClipPolicy
from projected_grpo.routing import Space
from projected_grpo.split import Gate

ROOT = Path(__file__).parent.parent
THEIRS = """
import torch
from invariants import Subject
def split(g, V):
    removed = V.T @ torch.relu(V @ g)
    return g - removed, removed
subject = Subject(name="theirs", split=split)
def chatter(g, V):
    print("splitting")
    return split(g, V)
chatty = Subject(name="chatty", split=chatter)
broken = Subject(name="broken", split=lambda g, V: (g, split(g, V)[1]))
"""


@pytest.fixture
def theirs(tmp_path, monkeypatch, small_tape):
    (tmp_path / "their_code.py").write_text(THEIRS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    small_tape.save(tmp_path / "tape.safetensors")
    return tmp_path


@pytest.mark.usefixtures("theirs")
def test_a_green_run_exits_0_with_a_table(capsys):
    assert main(["verify", "their_code:subject", "--tape", "tape.safetensors"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("theirs (float64): ran ")
    assert "split.conservation" in out


@pytest.mark.usefixtures("theirs")
def test_a_red_run_exits_1_and_names_the_command_to_see_it_again(capsys):
    assert main(["verify", "their_code:broken", "--tape", "tape.safetensors", "--only", "split.conservation"]) == 1
    again = "projected-grpo verify their_code:broken --only split.conservation --tape tape.safetensors"
    assert again in capsys.readouterr().out


@pytest.mark.usefixtures("theirs")
def test_expected_violations_are_given_with_their_reason(capsys):
    arguments = ["verify", "their_code:broken", "--tape", "tape.safetensors", "--only", "split.conservation"]
    assert main([*arguments, "--expect", "split.conservation", "known since v1"]) == 0
    assert "known since v1" in capsys.readouterr().out
    two = ["--expect", "split.conservation", "known", "--expect", "split.matches_reference", "known too"]
    assert main([*arguments, "split.matches_reference", *two]) == 0
    assert "known too" in capsys.readouterr().out


def test_the_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"projected-grpo {version('projected-grpo')}\n"


@pytest.mark.usefixtures("theirs")
def test_json_is_all_that_is_printed(capsys):
    assert main(["verify", "their_code:subject", "--tape", "tape.safetensors", "--only", "split", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["subject"] == "theirs"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["no_such_module:subject"], "does not import"),
        (["their_code:subject", "--only", "typo"], "No invariant or family is called 'typo'"),
        (["their_code:subject", "--tape", "absent.safetensors"], "absent.safetensors is no file"),
        (["their_code:subject", "--tape", "their_code.py"], "not a whole safetensors file"),
        (["their_code:subject", "--tape", "cut.safetensors"], "not a whole safetensors file"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(theirs, capsys, arguments, sentence):
    whole = (theirs / "tape.safetensors").read_bytes()
    (theirs / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    assert main(["verify", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sentence in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.usefixtures("theirs")
def test_what_a_subject_prints_does_not_mix_with_the_report(capsys):
    arguments = ["verify", "their_code:chatty", "--tape", "tape.safetensors", "--only", "split.conservation", "--json"]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["ok"]
    assert "splitting" in captured.err


def test_a_reader_that_closes_the_pipe_does_not_decide_the_exit_code(theirs):
    program = Path(sys.executable).parent / "projected-grpo"
    command = f"set -o pipefail; {program} verify their_code:subject --tape tape.safetensors --only split --json | true"
    finished = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=theirs)
    assert (finished.returncode, finished.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [["verify", "--no-such-option"], ["no-such-command"]])
def test_usage_errors_exit_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_invariants_lists_every_statement(capsys):
    assert main(["invariants"]) == 0
    out = capsys.readouterr().out
    assert "split.conservation" in out
    assert "The route-ablated model matches erase" in out


def test_a_bug_of_ours_keeps_its_traceback(monkeypatch):
    def broken():
        raise ValueError("not the user's fault")

    monkeypatch.setitem(sys.modules["projected_grpo.cli"].COMMANDS, "invariants", broken)
    with pytest.raises(ValueError, match="not the user's fault"):
        main(["invariants"])


def test_the_suite_is_found_where_it_came_from():
    ensure_own_suite()


@pytest.mark.parametrize("name", ["invariants", "reference"])
def test_a_package_that_shadows_the_suite_is_named_and_not_imported(tmp_path, name):
    (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')\n")
    code = "import sys; from projected_grpo.cli import main; sys.exit(main(['verify', '--only', 'split']))"
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert finished.returncode == 2
    assert f"shadows the package '{name}'" in finished.stderr
    assert str(tmp_path) in finished.stderr
    assert finished.stderr.count("\n") == 1


def test_importing_the_package_does_not_import_what_checks_it():
    code = (
        "import sys, projected_grpo, projected_grpo.optimizer, projected_grpo.adapter;"
        "print({m.split('.')[0] for m in sys.modules} & {'invariants', 'reference', 'regression'})"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert finished.stdout.strip() == "set()"


def test_the_error_is_one_of_the_package():
    from projected_grpo.errors import ProjectedGRPOError

    assert issubclass(ShadowedPackageError, ProjectedGRPOError)


def test_whatever_the_package_claims_of_a_linear_optimizer_the_suite_has_a_check_for():
    """The hypotheses are written twice, in the package and in the suite, which may not import each other."""
    known = {i.id: i for i in all_invariants()}
    # Not preserve_magnitude: what holds of it exactly is not judged where it blows rounding up.
    for space, clip, gate, overshoot in product(get_args(Space), get_args(ClipPolicy), get_args(Gate), (0.5, 1.0, 1.5)):
        if space != "gradient" and clip != "before":
            continue
        options = {"gate": gate, "overshoot": overshoot}
        claims = guarantees(
            space=space, clip=clip, rule=SplitRule(**options), linear=True, separable=True, isotropic=True,
            nonnegative=True, max_norm_set=True,
        )  # fmt: skip
        setting = StepSetting(optimizer="SGD", space=space, clip=clip, rule=reference.SplitRule(**options))
        for guarantee, claim in claims.items():
            reason = known[CHECKED_AS[guarantee]].applies(setting)
            assert not (claim.holds and reason), (setting.label, guarantee, reason)
