"""What today's writer writes of a scripted run, byte for byte; `pytest --snapshot-update` writes the golden files anew.

They lie in regression/golden. A diff there is a change of format, which a released one never makes.
"""

from pathlib import Path

import pytest
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

import regression
from projected_grpo.logs import LogWriter, Stream, recover
from projected_grpo.logs.adapters import to_run

GOLDEN = Path(regression.__file__).parent / "golden"
RATES = ("hack", "solve", "format")


class Golden(SingleFileSnapshotExtension):
    """One file for each snapshot, in a folder of the module's name, by which syrupy knows whose they are."""

    _write_mode = WriteMode.TEXT
    file_extension = "txt"

    @classmethod
    def dirname(cls, *, test_location):
        return str(GOLDEN / Path(test_location.filepath).stem)


@pytest.fixture
def golden(snapshot):
    return snapshot.use_extension(Golden)


def step(number, arm):
    """A step with a value of every kind: fractions, nulls, what is not finite, what an arm has not."""
    routed = arm == "route"
    return "step", number, {
        "loss": -0.0125 * number, "reward": 0.5 + number / 16, "hack_student": number / 12,
        "solve_student": 3 / 12, "format_student": 1.0, "hack_teacher": 2 / 4 if number == 1 else None,
        "solve_teacher": 0.0 if number == 1 else None, "teacher_share": 0.25 if number == 1 else 0.0,
        "flat_groups": 0.5, "completion_tokens": 11.25, "kl": 1e-05, "lr": 0.01 / number,
        "grad_norm_pre_clip": 20.0, "grad_norm_post_clip": 10.0, "cos_pre": 0.625 if arm != "none" else None,
        "fired": 3, "axes": 9, "drift_ratio": float("inf") if number == 1 else 1.5,
        "drift_opposition": 0.25 if routed else None, "quarantine_norm": 0.125 if routed else None,
        "source_agreement": float("nan"), "seconds_step": 2.0, "student_completions": 12,
        "teacher_completions": 4 if number == 1 else 0, "completions": 16 if number == 1 else 12, "groups": 4,
    }  # fmt: skip


def script(arm):
    """Every kind of event of a run."""
    config = {"grpo": {"steps": 2, "max_norm": float("inf")}, "routing": {"intervention": arm}, "run": {"seed": 3}}
    looked = {f"{name}_{view}": n / 16 for n, name in enumerate(RATES) for view in ("trained", "deployed")}
    return [
        ("run", 0, {"config": config, "arm": arm, "modules": 2, "basis_separation": 5 / 6, "basis_held_out": 6}),
        ("checkpoint", 0, {"folder": "step-000000", "seconds": 0.5}),
        step(1, arm),
        ("resumed", 1, {"versions": {"python": "3.11"}}),
        ("warning", 1, {"text": 'drift_ratio is "high",\nand rising'}),
        ("refresh", 2, {"accepted": False, "basis_axes": 0}),
        step(2, arm),
        ("evaluation", 2, {**looked, "hack_by_mode_trained": {"sentinel": 0.5}, "prompts": 16, "seconds": 0.25}),
        ("final", 2, {"report": {"rates": {"base": {"hack": 0.0}}}}),
    ]


@pytest.mark.parametrize("arm", ["none", "route"])
def test_the_log(arm, golden, tmp_path):
    path = tmp_path / "log.jsonl"
    with LogWriter(path, arm=arm) as log:
        for event, number, values in script(arm):
            log.write(event, step=number, **values)
    assert recover(path).complete
    assert path.read_text() == golden


@pytest.mark.parametrize("arm", ["none", "route"])
def test_the_stream(arm, golden):
    stream = Stream()
    assert "\n".join(line for told in script(arm) for line in stream.lines(*told)) == golden


def test_what_trackers_are_told(golden):
    told = []

    class Run:
        def log(self, metrics, *, step):
            told.extend(f"{step} {name} {value}" for name, value in metrics.items())

    tell = to_run(Run())
    for each in script("route"):
        tell(*each)
    assert "\n".join(told) == golden
