"""A script shows a violation with torch alone, and fails for it."""

import functools
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from museum_tape import tape

from invariants import Subject, Verdict, all_invariants, verify
from invariants.museum import CORRECT, FAULTS
from invariants.museum.split import CORRECT as CORRECT_SPLITS
from invariants.repro import IMPOSSIBLE, SNIPPETS, script, scripts
from invariants.repro.literal import literal

ALONE = """
import runpy, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is not there")
BLOCKED = {"invariants", "reference", "projected_grpo", "regression", "hypothesis", "safetensors", "transformers"}
sys.meta_path.insert(0, Blocked())
"""
ONE = ALONE + "runpy.run_path(sys.argv.pop(1), run_name='__main__')"
MANY = (
    ALONE
    + """
import contextlib, io, json, torch
torch.set_num_threads(1)
told = {}
for job, path, *options in json.loads(sys.stdin.read()):
    sys.argv, out = [path, *options], io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            runpy.run_path(path, run_name="__main__")
        told[job] = [0, out.getvalue(), ""]
    except AssertionError as error:
        told[job] = [1, out.getvalue(), str(error)]
print(json.dumps(told))
"""
)
SHOWN = [fault for fault in FAULTS if fault.caught_by in SNIPPETS]
STANDALONE = list({fault.caught_by: fault for fault in SHOWN if fault.bug is not None}.values())[:12]


@functools.cache
def result_of(fault):
    [result] = verify(fault.subject(), tape=tape(), only=[fault.caught_by], profile="quick").results
    return result


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What every fault's script says, and of splits what it says of a correct function; all in one process."""
    folder = tmp_path_factory.mktemp("scripts")
    correct = ["import torch"]
    jobs = []
    for number, fault in enumerate(SHOWN):
        path = folder / f"{number}.py"
        path.write_text(script(result_of(fault)) or "print('no script')")
        jobs.append((fault.name, str(path)))
        setting = next(iter(fault.subject().settings("split")), None)
        if setting in CORRECT_SPLITS and "split" in fault.caught_by:
            rule = [*CORRECT_SPLITS].index(setting)
            jobs.append((f"{fault.name}, live", str(path), f"correct_splits:split_{rule}"))
    correct += [f"def split_{n}(g, V):\n    {BODIES[s.label]}" for n, s in enumerate(CORRECT_SPLITS)]
    (folder / "correct_splits.py").write_text("\n\n\n".join(correct))
    run = subprocess.run(
        [sys.executable, "-I", "-c", MANY],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


ONE_SIDED = "removed = V.T @ torch.relu(V @ g)"
BODIES = {
    "one_sided": f"{ONE_SIDED}\n    return g - removed, removed",
    "no_gate": "removed = V.T @ (V @ g)\n    return g - removed, removed",
    "one_sided, overshoot 1.5": f"{ONE_SIDED} * 1.5\n    return g - removed, removed",
    "one_sided, preserve magnitude": f"{ONE_SIDED}\n    kept = g - removed\n"
    "    return (kept * (g.norm() / kept.norm()) if kept.any() else kept), removed",
}


@pytest.mark.long
@pytest.mark.parametrize("fault", SHOWN, ids=lambda fault: fault.name)
def test_the_script_of_a_fault_fails_and_names_the_invariant(fault, told):
    code, out, message = told[fault.name]
    assert code == 1, out
    assert message.startswith(f"{fault.caught_by} is violated: ")
    assert "observed" in out
    assert "allowed" in out


SPLITS = [fault for fault in SHOWN if fault.subject().settings("split")]


@pytest.mark.long
@pytest.mark.parametrize("fault", SPLITS, ids=lambda fault: fault.name)
def test_the_same_script_passes_a_correct_function(fault, told):
    code, out, message = told[f"{fault.name}, live"]
    assert code == 0, message
    assert out.startswith(fault.caught_by)


@pytest.mark.parametrize(
    "fault",
    [*STANDALONE[:3], *(pytest.param(fault, marks=pytest.mark.long) for fault in STANDALONE[3:])],
    ids=lambda fault: fault.name,
)
def test_a_script_stands_alone(fault, tmp_path):
    path = tmp_path / "shown.py"
    path.write_text(script(result_of(fault)))
    run = subprocess.run(
        [sys.executable, "-I", "-c", ONE, str(path)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert run.returncode == 1
    assert f"AssertionError: {fault.caught_by} is violated" in run.stderr
    assert "observed" in run.stdout


def test_twelve_and_more_really_stand_alone():
    assert len(STANDALONE) == 12


def test_every_invariant_has_a_snippet_or_a_reason_why_not():
    ids = {invariant.id for invariant in all_invariants()}
    assert set(SNIPPETS) | set(IMPOSSIBLE) == ids
    assert not set(SNIPPETS) & set(IMPOSSIBLE)
    assert all(len(reason) > 20 for reason in IMPOSSIBLE.values())


def test_there_is_no_script_of_what_holds():
    report = verify(CORRECT, tape=tape(), only=["split.conservation", "adapter.merge"])
    assert [script(result) for result in report.results] == [None, None]
    assert scripts(report) == {}


def test_there_is_no_script_of_what_does_not_show_again():
    moods = {"wrong": True}

    def moody(g, V):
        removed = V.T @ torch.relu(V @ g)
        return g - removed, removed * (2 if moods["wrong"] else 1)

    [result] = verify(Subject(name="moody", split=moody), tape=tape(), only=["split.conservation"]).results
    assert result.verdict is Verdict.VIOLATED
    moods["wrong"] = False
    assert script(result) is None


def test_scripts_are_named_for_their_invariants():
    fault = next(f for f in FAULTS if f.caught_by == "split.one_sided")
    report = verify(fault.subject(), tape=tape(), only=["split.one_sided", "split.purity"])
    made = scripts(report)
    assert list(made) == ["split.one_sided.py"]
    compile(made["split.one_sided.py"], "made", "exec")
    assert made["split.one_sided.py"].startswith('"""split.one_sided is violated.')


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool]
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (0, 4), (2, 3), (5, 40), (2, 3, 4)])
def test_a_literal_gives_the_same_bits_back(dtype, shape):
    draw = torch.Generator().manual_seed(1)
    values = torch.randn(shape, dtype=torch.float64, generator=draw) * 10.0 ** torch.randint(
        -6, 4, shape, generator=draw
    )
    written = values.to(dtype)
    if written.is_floating_point() and written.numel():
        written.view(-1)[0] = float("nan") if len(shape) == 2 else -0.0
    read = eval(literal({"x": [written]}), {"torch": torch, "nan": float("nan"), "inf": float("inf")})["x"][0]
    assert (read.dtype, read.shape) == (written.dtype, written.shape)
    assert (
        torch.equal(read.nan_to_num(1e9), written.nan_to_num(1e9))
        if dtype.is_floating_point
        else torch.equal(read, written)
    )
    if dtype.is_floating_point:
        assert torch.equal(read.signbit(), written.signbit())


def test_a_subject_in_float32_is_written_out_in_float32():
    fault = next(f for f in FAULTS if f.caught_by == "split.one_sided")
    [result] = verify(replace(fault.subject(), dtype=torch.float32), tape=tape(), only=["split.one_sided"]).results
    assert ", float32\n" in script(result)
    assert "torch.float64" not in script(result).partition("# What it gave back.")[0].partition("What the subject")[2]
