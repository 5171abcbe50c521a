"""Whole runs: what may and what may not change a bit of them."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_toys import moved, same_bits, toy, trained

from projected_grpo import testbed
from projected_grpo.adapter import routed_vectors
from projected_grpo.logs import DamagedLogError, declared, read
from projected_grpo.testbed import Recipe
from projected_grpo.training import CheckpointError, RunExistsError, Trainer
from projected_grpo.training.errors import RunBusyError
from projected_grpo.training.sampling import sample_pool
from projected_grpo.training.task import Scored, Task

ARMS = ("none", "erase", "route")


@pytest.mark.parametrize("intervention", ARMS)
def test_one_seed_gives_one_run_and_another_seed_another(intervention):
    config = toy(routing={"intervention": intervention})
    first = trained(config)
    assert same_bits(first, trained(config))
    assert not same_bits(first, trained(replace(config, run=replace(config.run, seed=1))))
    assert moved(first, "deployed")
    assert moved(first, "quarantine") == (intervention == "route")


def test_evaluation_logs_and_measuring_change_nothing(tmp_path):
    base = toy(routing={"intervention": "none"})
    plain = trained(base)
    assert same_bits(plain, trained(replace(base, evaluation=replace(base.evaluation, evaluate_every=0))))
    assert same_bits(plain, trained(replace(base, run=replace(base.run, out=tmp_path / "logged"))))
    logged = [entry.event for entry in read(tmp_path / "logged" / "log.jsonl")]
    assert logged.count("step") == 5
    assert logged.count("evaluation") == 3, "two on the way, one at the end"
    assert same_bits(plain, trained(replace(base, basis=replace(base.basis, measure=False, refresh_every=0))))


class OtherOracle:
    """A task whose oracle is wrong about some completions, and pays as before."""

    def __init__(self, task: Task) -> None:
        self.task, self.lied = task, 0

    def __getattr__(self, name: str):
        return getattr(self.task, name)

    def grade(self, prompts, completions) -> Scored:
        scored = self.task.grade(prompts, completions)
        solved = scored.solved.roll(1)
        self.lied += int((solved != scored.solved).sum())
        return replace(scored, solved=solved)


def test_the_oracles_word_reaches_no_parameter():
    oracles = []

    def around(task: Task) -> OtherOracle:
        oracles.append(OtherOracle(task))
        return oracles[-1]

    assert same_bits(trained(toy()), trained(toy(), around=around))
    assert oracles[0].lied > 0


@pytest.mark.parametrize(("space", "steps"), [("gradient", [3]), ("update", [3]), ("displacement", [1, 2, 3, 4])])
def test_a_run_resumes_at_every_step_to_the_same_bits(tmp_path, space, steps):
    whole = trained(toy(routing={"space": space}))
    for step in steps:
        place = tmp_path / f"{step}"
        with Trainer.begin(toy(place, routing={"space": space})) as run:
            assert run.run(until=step) is None
        with Trainer.resume(place) as run:
            assert run.done == step
            run.run()
        assert same_bits(load_file(place / "vectors.safetensors"), whole)


def test_a_resumed_log_says_what_the_uninterrupted_one_says(tmp_path):
    trained(toy(tmp_path / "whole"))
    place = tmp_path / "stopped"
    with Trainer.begin(toy(place)) as run:
        run.run(until=3)  # V is due to be refreshed
        run.step()  # logged, and lost with the process before its checkpoint
    with (place / "log.jsonl").open("a") as log:
        log.write('{"schema": 1, "event": "st')
    with Trainer.resume(place) as run:
        run.run()

    def told(path: Path) -> list[tuple[str, int, dict]]:
        entries = [e for e in read(path / "log.jsonl") if e.event not in ("resumed", "run", "checkpoint")]
        timeless = [{k: v for k, v in e.values.items() if not k.startswith("seconds")} for e in entries]
        return [(e.event, e.step, values) for e, values in zip(entries, timeless, strict=True)]

    assert told(place) == told(tmp_path / "whole")
    assert [step for event, step, _ in told(place) if event == "refresh"] == [4]
    with Trainer.resume(place) as run:
        run.run()
    assert told(place) == told(tmp_path / "whole"), "a finished run stays as it is"
    assert sum(entry.event == "resumed" for entry in read(place / "log.jsonl")) == 2


def test_a_run_that_goes_on_with_other_versions_is_warned(tmp_path, monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setenv("PROJECTED_GRPO_KERNELS", "on")
    with Trainer.begin(toy(tmp_path / "run")) as run:
        run.run(until=2)
    monkeypatch.setenv("PROJECTED_GRPO_KERNELS", "off")
    with Trainer.resume(tmp_path / "run") as run:
        run.run(until=3)
    with Trainer.resume(tmp_path / "run") as run:  # from a checkpoint without them
        run.run(until=4)
    log = read(tmp_path / "run" / "log.jsonl")
    numba = f"numba {version('numba')}"
    told = [entry.values["text"] for entry in log if entry.event == "warning" and "loops" in entry.values["text"]]
    assert told == [f"loops was {numba} when the checkpoint was written, and is none now."]
    assert [entry.values["versions"].get("loops") for entry in log if "versions" in entry.values] == [numba, None, None]


def test_a_stopped_run_is_checkpointed_at_once(tmp_path):
    with Trainer.begin(toy(tmp_path / "run", run={"checkpoint_every": 100})) as run:
        assert run.run(stop=lambda: run.done == 3) is None
    with Trainer.resume(tmp_path / "run") as run:
        assert run.done == 3


def killed_and_resumed(place: Path, at: int) -> dict[str, torch.Tensor]:
    """Kills a run, without a chance to clean up, once its log has step `at`; then goes on with it."""
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from training_toys import toy, trained\n"
        "trained(toy(Path(sys.argv[1]), grpo={'steps': 12}, run={'checkpoint_every': 3}))"
    )
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", program, place, Path(__file__).parent])
    log = place / "log.jsonl"
    while process.poll() is None and not (log.exists() and f'"event": "step", "step": {at},' in log.read_text()):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was killed before its end"
    with Trainer.resume(place) as run:
        assert run.done <= at
        run.run()
        return load_file(place / "vectors.safetensors")


@pytest.fixture(scope="module")
def uninterrupted() -> dict[str, torch.Tensor]:
    return trained(toy(grpo={"steps": 12}))


@pytest.mark.parametrize("at", [2, 5, 9])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, uninterrupted, at):
    assert same_bits(killed_and_resumed(tmp_path / "run", at), uninterrupted)


@pytest.mark.kills
@pytest.mark.parametrize("draw", range(20))
def test_runs_killed_at_random_steps_go_on_to_the_same_bits(tmp_path, uninterrupted, draw):
    at = int(torch.randint(1, 12, (), generator=torch.Generator().manual_seed(draw)))
    assert same_bits(killed_and_resumed(tmp_path / "run", at), uninterrupted)


def test_the_final_report_is_what_the_saved_models_do(tmp_path):
    place = tmp_path / "run"
    with Trainer.begin(toy(place)) as run:
        report = run.run()
        assert report is not None
        assert json.loads((place / "report.json").read_text()) == report.plain()
        vectors = load_file(place / "vectors.safetensors")
        shipped = load_file(place / "deployed" / "adapter_model.safetensors")
        assert not any("quarantine" in name for name in shipped)
        for name in routed_vectors(run.policy.model):
            assert torch.equal(vectors[f"{name}.deployed"], next(v for k, v in shipped.items() if name in k))
    final = [entry for entry in read(place / "log.jsonl") if entry.event == "final"]
    assert [entry.values["report"] for entry in final] == [report.plain()]


def test_under_none_the_report_has_the_post_hoc_projection_and_the_run_stays_unprojected():
    with Trainer(toy(routing={"intervention": "none"}), None) as run:
        report = run.run()
        assert report is not None
        assert list(report.rates) == ["base", "trained", "deployed", "posthoc", "off_axes"]
        assert report.rates["trained"] == report.rates["deployed"]
    vectors = trained(toy(routing={"intervention": "none"}))
    assert not moved(vectors, "quarantine")


def test_a_folder_in_use_is_refused_and_untouched(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").write_text("kept")
    with pytest.raises(RunExistsError, match="--resume"):
        Trainer.begin(toy(tmp_path / "run"))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine"]


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path):
    with pytest.raises(CheckpointError, match="no run that can be gone on with"):
        Trainer.resume(tmp_path)


def test_a_run_that_never_came_to_a_checkpoint_begins_again_with_one_log(tmp_path):
    place = tmp_path / "run"
    with Trainer.begin(toy(place)):
        pass
    shutil.rmtree(place / "checkpoints")
    with Trainer.resume(place) as run:
        run.run()
    assert [entry.event for entry in read(place / "log.jsonl")].count("run") == 1
    assert same_bits(load_file(place / "vectors.safetensors"), trained(toy()))
    shutil.rmtree(place / "checkpoints")
    with pytest.raises(CheckpointError, match="its checkpoints are gone"):
        Trainer.resume(place)


def begun(place: Path, **sections: Any) -> Path:
    with Trainer.begin(toy(place, **sections)) as run:
        run.run(until=2)
    return place


def test_other_settings_are_not_gone_on_with(tmp_path):
    place = begun(tmp_path / "run")
    plain = json.loads((place / "config.json").read_text())
    plain["grpo"]["lr"] = 0.5
    (place / "config.json").write_text(json.dumps(plain))
    with pytest.raises(CheckpointError, match=r"lr 0\.01, and the run's folder says 0\.5"):
        Trainer.resume(place)


def test_another_model_or_pool_is_not_gone_on_with(tmp_path, monkeypatch):
    testbed.save(testbed.load()[0], tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    place = begun(tmp_path / "run", model={"model": "model"})
    monkeypatch.chdir("/")  # the path still means the same
    with Trainer.resume(place) as run:
        run.run()
    testbed.save(testbed.load(1, Recipe(steps=1))[0], tmp_path / "model")
    with pytest.raises(CheckpointError, match="model is not what it was"):
        Trainer.resume(place)
    pool = tmp_path / "pool.gz"
    with pytest.raises(CheckpointError, match="model is not what it was"):
        sample_pool(place, pool, 10, "trained", 0)
    taught = {"pool": pool, "teach_pairs": False}
    sample_pool(begun(tmp_path / "other"), pool, 200, "base", 0)
    place = begun(tmp_path / "taught", teacher=taught)
    pool.unlink()
    sample_pool(tmp_path / "other", pool, 200, "base", 1)
    with pytest.raises(CheckpointError, match="pool is not what it was"):
        Trainer.resume(place)


def test_a_damaged_line_of_the_log_is_named_and_says_what_to_do(tmp_path):
    place = begun(tmp_path / "run")
    log = place / "log.jsonl"
    lines = log.read_bytes().splitlines()
    log.write_bytes(b"\n".join([lines[0][:-9] + b"\xff" + lines[0][-8:], *lines[1:]]) + b"\n")
    with pytest.raises(DamagedLogError, match=r"log\.jsonl, line 1: .*; put back a copy that is whole"):
        Trainer.resume(place)
    for lose in (log.unlink, lambda: log.write_bytes(b"")):
        lose()
        with Trainer.resume(place) as run:
            assert run.done == 2
        assert [(entry.event, entry.step) for entry in read(log)][:2] == [("run", 2), ("resumed", 2)]


def test_two_cannot_be_at_one_run(tmp_path):
    with Trainer.begin(toy(tmp_path / "run")), pytest.raises(RunBusyError, match="Another process"):
        Trainer.resume(tmp_path / "run")
    with Trainer.resume(tmp_path / "run") as run:
        assert run.done == 0


def test_what_was_half_written_is_swept_away(tmp_path):
    place = begun(tmp_path / "run")
    (place / "checkpoints" / ".step-000009.1.partial").mkdir()
    (place / "log.jsonl.1.partial").write_text("half")
    with Trainer.resume(place):
        pass
    assert not [path for path in place.rglob("*") if path.suffix == ".partial"]


@pytest.mark.parametrize("intervention", ARMS)
def test_metrics_are_measured_in_the_arms_that_they_are_declared_for(intervention):
    told: dict[str, dict[str, Any]] = {}
    config = toy(routing={"intervention": intervention})
    with Trainer(config, None, tell=lambda event, step, values: told.setdefault(event, {}).update(values)) as run:
        assert run.run() is run.run(), "the end is told once"
    for event, values in told.items():
        assert values.keys() <= declared(event).keys()
        for name, metric in declared(event).items():
            assert name in values
            assert intervention in metric.arms or values[name] is None


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    place = tmp_path / "run"
    with Trainer.begin(toy(place)) as run:
        run.run(until=4)
    newest = place / "checkpoints" / "step-000004"
    (newest / "tensors.safetensors").write_bytes(b"cut")
    with Trainer.resume(place) as run:
        assert run.done == 2
        run.run()
    assert same_bits(load_file(place / "vectors.safetensors"), trained(toy()))
    told = [entry.values["text"] for entry in read(place / "log.jsonl") if entry.event == "warning"]
    assert any("step-000004" in text and "the checkpoint before it was taken" in text for text in told)


def test_a_run_that_learns_nothing_says_so():
    told = []
    config = toy(grpo={"steps": 6, "temperature": 1e-3, "prompts": 2}, teacher={"teach_pairs": False})
    with Trainer(config, None, tell=lambda event, step, values: told.append((event, step, values))) as run:
        run.run()
    flat = [step for event, step, values in told if event == "step" and values["flat_groups"] == 1]
    assert flat == [1, 2, 3, 4, 5, 6], "at this temperature a group is one completion"
    assert [step for event, step, values in told if event == "warning"] == [5]
