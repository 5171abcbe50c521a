"""The options of `projected-grpo verify`: formats, files, expectations, scripts; and every way to get them wrong."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from projected_grpo.cli import main

PROGRAM = Path(sys.executable).parent / "projected-grpo"
THEIRS = """
import os, signal, torch
from invariants import SplitSetting, Subject
def split(g, V):
    removed = V.T @ torch.relu(V @ g)
    return g - removed, removed
def leaky(g, V):
    kept, removed = split(g, V)
    return kept, 2 * removed
def interrupted(g, V):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits that it is ignored
    os.kill(os.getpid(), signal.SIGINT)
    return split(g, V)
def chatter(g, V):
    print("splitting")
    return leaky(g, V)
def wandering(g, V):
    os.chdir("/")
    return leaky(g, V)
subject = Subject(name="theirs", split=split)
wanders = Subject(name="wanders", split=wandering)
broken = Subject(name="broken", split=leaky)
chatty = Subject(name="chatty", split=chatter)
slow = Subject(name="slow", split=interrupted)
several = Subject(name="several", split={SplitSetting(): leaky, SplitSetting(subtracts_stored=True): leaky}, claims={
    "split.span", "split.conservation", "split.purity", "split.pythagoras"})
"""
ONE = ["--tape", "tape.safetensors", "--only", "split.conservation"]


@pytest.fixture
def theirs(tmp_path, monkeypatch, small_tape):
    (tmp_path / "some_code.py").write_text(THEIRS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    small_tape.save(tmp_path / "tape.safetensors")
    (tmp_path / "known.toml").write_text(
        '[[expected]]\nid = "split.conservation"\nreason = "known since v1"\nowner = "kim"\nexpires = 9999-12-31\n'
    )
    (tmp_path / "expired.toml").write_text(
        '[[expected]]\nid = "split.conservation"\nreason = "known since v1"\nowner = "kim"\nexpires = 2020-01-01\n'
    )
    return tmp_path


pytestmark = pytest.mark.usefixtures("theirs")


def test_expectations_come_from_a_file_and_from_the_command_line(capsys):
    command = ["verify", "some_code:broken", *ONE]
    assert main([*command, "--expect", "known.toml"]) == 0
    assert "known since v1 (kim, until 9999-12-31)" in capsys.readouterr().out
    assert main([*command, "split.span", "--expect", "known.toml", "--expect", "split.span", "known too"]) == 1
    assert "expected to be violated (known too), but: it holds" in capsys.readouterr().out


def test_what_no_script_can_show_says_why(capsys):
    command = ["verify", "some_code:broken", "--tape", "tape.safetensors", "--only", "split.null_baseline"]
    assert main([*command, "--repro", "scripts"]) == 1
    assert "  script        none: the check draws its own input once per setting" in capsys.readouterr().out
    assert not Path("scripts").exists()


def test_files_land_where_they_were_asked_for_wherever_the_subject_goes(theirs, capsys):
    assert main(["verify", "some_code:wanders", *ONE, "--report", "here.json", "--repro", "scripts"]) == 1
    assert sorted(path.name for path in theirs.glob("here*")) == ["here.json"]
    assert (theirs / "scripts" / "split.conservation.py").is_file()


def test_a_report_without_a_name_is_refused(capsys):
    assert main(["verify", "some_code:subject", *ONE, "--report"]) == 2
    assert "--report names no file" in capsys.readouterr().err


def test_a_run_leaves_nothing_behind(theirs):
    before = sorted(path.name for path in theirs.iterdir())
    command = [PROGRAM, "verify", "some_code:broken", *ONE]  # a counterexample is looked for, by hypothesis
    ended = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    assert ended.returncode == 1
    assert sorted(path.name for path in theirs.iterdir()) == before


def test_an_expired_expectation_is_red_and_names_its_owner(capsys):
    assert main(["verify", "some_code:broken", *ONE, "--expect", "expired.toml"]) == 1
    said = "  because       its expectation by kim expired on 2020-01-01: known since v1\n"
    assert said in capsys.readouterr().out


def test_a_required_check_that_does_not_apply_is_red(capsys):
    assert main(["verify", "some_code:subject", *ONE, "split.additivity", "--require", "split.conservation"]) == 0
    assert main(["verify", "some_code:subject", *ONE, "split.additivity", "--require", "split.additivity"]) == 1
    assert "  because       required, but not applicable: relu is not additive\n" in capsys.readouterr().out


def test_the_profile_decides_how_much_is_looked_at_and_is_part_of_the_command_that_reproduces(capsys):
    cases = {}
    for profile in ("quick", "ci"):
        assert main(["verify", "some_code:broken", *ONE, "--profile", profile, "--json"]) == 1
        data = json.loads(capsys.readouterr().out)
        assert data["profile"] == profile
        cases[profile] = data["results"][0]["settings"][0]["cases"]
    assert cases["quick"] < cases["ci"]
    assert main(["verify", "some_code:broken", *ONE, "--profile", "quick"]) == 1
    assert "--only split.conservation --tape tape.safetensors --profile quick\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("format", "begins"),
    [("json", "{\n"), ("junit", "<?xml "), ("markdown", "## red: broken (float64), ran 1 / "), ("text", "broken (flo")],
)
def test_a_format_is_printed_and_the_same_is_written_to_a_file(theirs, capsys, format, begins):
    suffix = {"json": "json", "junit": "xml", "markdown": "md", "text": "txt"}[format]
    name = f"report.{suffix}"
    assert main(["verify", "some_code:broken", *ONE, "--format", format, "--report", name]) == 1
    out = capsys.readouterr().out
    assert out.startswith(begins)
    assert (theirs / name).read_text().rstrip() == out.rstrip()


def test_several_files_are_written_and_nothing_is_left_beside_them(theirs, capsys):
    before = {path.name for path in theirs.iterdir()}
    assert main(["verify", "some_code:subject", *ONE, "--report", "r.json", "r.xml", "r.md", "r.txt"]) == 0
    assert {path.name for path in theirs.iterdir()} - before - {"__pycache__"} == {"r.json", "r.xml", "r.md", "r.txt"}
    assert json.loads((theirs / "r.json").read_text())["ok"]
    assert ET.parse(theirs / "r.xml").getroot().tag == "testsuites"
    assert (theirs / "r.txt").read_text() == capsys.readouterr().out


def test_what_a_subject_prints_while_its_failure_is_told_does_not_mix_with_the_report(capsys):
    assert main(["verify", "some_code:chatty", *ONE, "--json"]) == 1
    captured = capsys.readouterr()
    assert not json.loads(captured.out)["ok"]
    assert "splitting" in captured.err


def test_a_script_is_written_for_a_violation_and_named_where_it_is_told(theirs, capsys):
    assert main(["verify", "some_code:broken", *ONE, "--repro", "scripts"]) == 1
    assert "  script        scripts/split.conservation.py\n" in capsys.readouterr().out
    alone = subprocess.run(
        [sys.executable, "scripts/split.conservation.py"], cwd=theirs, capture_output=True, text=True
    )
    assert alone.returncode == 1, alone.stderr
    assert main(["verify", "some_code:subject", *ONE, "--repro", "none"]) == 0
    assert not (theirs / "none").exists()


WRONG = [
    (["--expect", "absent.toml"], "absent.toml can't be read: No such file or directory."),
    (["--expect", "tape.safetensors"], "tape.safetensors is no text in UTF-8, as TOML must be."),
    (["--expect", "some_code.py"], "some_code.py is not valid TOML: "),
    (["--expect", "split.typo", "why"], "--expect: no invariant has the id 'split.typo'; "),
    (["--expect", "split.span", " "], "--expect: reason must be a text that says something, not ' '."),
    (
        ["--expect", "split.span @ reverse", "why"],
        "--expect: 'split.span @ reverse' names the setting 'reverse', and subject 'theirs' has 'one_sided'.",
    ),
    (
        ["--expect", "split.span", "is", "wrong"],
        "--expect takes a file, or an id and a reason in quotes, and not the 3 words 'split.span is wrong'; a subject "
        "is named before it.",
    ),
    (
        ["--expect", "known.toml", "some_code:subject"],
        "--expect takes a file, or an id and a reason in quotes, and not the 2 words 'known.toml some_code:subject'; a "
        "subject is named before it.",
    ),
    (
        ["--expect", "known.toml", "--expect", "split.conservation", "why"],
        "--expect and known.toml, entry 1: 'split.conservation' is expected twice; leave one of them out.",
    ),
    (["--require", "split"], "required: no invariant has the id 'split'; "),
    (
        ["--only", "split", "--require", "clip.covers_both"],
        "required: 'clip.covers_both' is not among the invariants that were chosen to run.",
    ),
    (["--report", "absent/r.json"], "absent/r.json can't be written: there is no directory absent; make it first."),
    (
        ["--report", "report"],
        "report does not say its format; a report's name ends in one of .txt (text), .json (json), .xml (junit), "
        ".md (markdown).",
    ),
    (["--report", "folder.md"], "folder.md can't be written: it is a directory."),
    (["--repro", "absent/scripts"], "--repro absent/scripts is no directory, and can't be made one; make it first."),
    (["--repro", "known.toml"], "--repro known.toml is no directory, and can't be made one; make it first."),
    (["--json", "--format", "junit"], "--json and --format junit contradict each other; leave one of them out."),
    (["--selftest"], "--selftest runs the museum and nothing else; leave out MODULE:OBJECT, --tape."),
    (["--seed", "-1"], "The seed is -1; it must be at least 0 and below 2**48."),
]


@pytest.mark.parametrize(("arguments", "sentence"), WRONG, ids=[" ".join(arguments) for arguments, _ in WRONG])
def test_a_wrong_option_is_one_sentence_before_anything_ran(theirs, monkeypatch, capsys, arguments, sentence):
    (theirs / "folder.md").mkdir()
    monkeypatch.setattr("invariants.runner.Bench.result", lambda *_: pytest.fail("the suite ran"))
    assert main(["verify", "some_code:subject", "--tape", "tape.safetensors", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"projected-grpo: {sentence}")
    assert captured.err == f"projected-grpo: {sentence}\n" or not sentence.endswith(".")
    assert captured.err.count("\n") == 1


def test_an_unknown_profile_or_format_is_a_usage_error():
    for arguments in (["--profile", "huge"], ["--format", "html"]):
        with pytest.raises(SystemExit) as caught:
            main(["verify", "some_code:subject", *arguments])
        assert caught.value.code == 2


class Outcome:
    def __init__(self, ok):
        self.ok, self.lines = ok, ["59 faults", "caught" if ok else "not caught"]

    def as_json(self):
        return {"ok": self.ok}


@pytest.mark.parametrize("ok", [True, False])
def test_the_selftest_decides_the_exit_code_and_prints_text_or_json(monkeypatch, capsys, ok):
    monkeypatch.setattr("invariants.museum.selftest", lambda progress: Outcome(ok))
    assert main(["verify", "--selftest"]) == (0 if ok else 1)
    assert capsys.readouterr().out == f"59 faults\n{'caught' if ok else 'not caught'}\n"
    assert main(["verify", "--selftest", "--json"]) == (0 if ok else 1)
    assert json.loads(capsys.readouterr().out) == {"ok": ok}
    assert main(["verify", "--selftest", "--format", "markdown"]) == 2
    assert capsys.readouterr().err == ("projected-grpo: --selftest is printed as text or as JSON, not as markdown.\n")


def test_an_interrupted_run_exits_130_in_one_line_and_leaves_no_report(theirs):
    command = [PROGRAM, "verify", "some_code:slow", *ONE, "--report", "r.json"]
    finished = subprocess.run(command, cwd=theirs, capture_output=True, text=True)
    assert (finished.returncode, finished.stdout, finished.stderr) == (130, "", "projected-grpo: interrupted\n")
    assert not list(theirs.glob("r.json*"))


def test_a_terminal_sees_what_comes_next_and_a_pipe_sees_nothing(theirs):
    command = [PROGRAM, "verify", "some_code:subject", *ONE]
    piped = subprocess.run(command, cwd=theirs, capture_output=True, text=True)
    assert (piped.returncode, piped.stderr) == (0, "")
    ours, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    finished = subprocess.run(command, cwd=theirs, stdout=subprocess.PIPE, stderr=terminal, env=environment, text=True)
    os.close(terminal)
    seen = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert finished.stdout == piped.stdout
    assert "starting" in seen


@pytest.mark.parametrize(
    "subject", ["broken", *(pytest.param(name, marks=pytest.mark.long) for name in ("subject", "several"))]
)
def test_the_same_seed_gives_the_same_bytes_in_every_process(theirs, subject):
    """Also where a hash decides the order of a set."""
    written = []
    for number in ("1", "2"):
        files = [f"{number}.{suffix}" for suffix in ("json", "xml", "md", "txt")]
        finished = subprocess.run(
            [PROGRAM, "verify", f"some_code:{subject}", *ONE, "split", "--report", *files],
            cwd=theirs, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": number},
        )  # fmt: skip
        assert finished.returncode in (0, 1), finished.stderr
        written.append([finished.stdout, *((theirs / file).read_text() for file in files)])
    assert written[0] == written[1]
