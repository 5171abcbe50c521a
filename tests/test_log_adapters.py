"""Adapters hand trackers the metrics that a log has, and nothing that was not measured."""

import sys
from types import ModuleType

import pytest

from projected_grpo.logs.adapters import to_all, to_run, to_tensorboard, tracking
from projected_grpo.logs.errors import MissingTrackerError

EVALUATION = {
    "hack_trained": 0.25, "solve_trained": None, "prompts": 16, "hack_by_mode_trained": {"sentinel": 0.5, "none": None},
}  # fmt: skip
POINTS = {
    "evaluation/hack_trained": 0.25, "evaluation/prompts": 16.0, "evaluation/hack_by_mode_trained/sentinel": 0.5,
}  # fmt: skip


class Writer:
    """As TensorBoard's SummaryWriter."""

    def __init__(self, log_dir=None):
        self.log_dir, self.scalars, self.texts, self.closed = log_dir, {}, {}, False

    def add_scalar(self, tag, scalar_value, global_step):
        self.scalars[tag, global_step] = scalar_value

    def add_text(self, tag, text_string, global_step):
        self.texts[tag, global_step] = text_string

    def close(self):
        self.closed = True


class Run:
    """As a run of wandb, and as trackio."""

    def __init__(self):
        self.logged = []

    def log(self, metrics, *, step):
        self.logged.append((step, metrics))


def test_tensorboard_gets_every_number_and_text_by_its_name():
    writer = Writer()
    tell = to_tensorboard(writer)
    tell("evaluation", 3, EVALUATION)
    tell("warning", 4, {"text": "drift"})
    assert writer.scalars == {(tag, 3): value for tag, value in POINTS.items()}
    assert writer.texts == {("warning/text", 4): "drift"}


def test_a_run_gets_them_at_once_and_nothing_where_nothing_was_measured():
    run, other = Run(), Run()
    tell = to_all(to_run(run), to_run(other))
    tell("evaluation", 3, EVALUATION)
    tell("step", 4, {"loss": None})
    tell("refresh", 5, {"accepted": True})
    assert run.logged == [(3, POINTS), (5, {"refresh/accepted": 1.0})]
    assert other.logged == run.logged


def test_configurations_are_no_curves():
    run = Run()
    to_run(run)("run", 0, {"config": {"seed": 3}, "modules": 7, "arm": "route"})
    assert run.logged == [(0, {"run/modules": 7.0, "run/arm": "route"})]


@pytest.mark.parametrize("tracker", ["wandb", "trackio"])
def test_a_run_is_begun_and_finished(tracker, tmp_path, monkeypatch):
    run, ended = Run(), []
    module = ModuleType(tracker)
    module.init = lambda **options: ended.append(options) or run
    module.log, module.finish = run.log, lambda: ended.append("finished")
    monkeypatch.setitem(sys.modules, tracker, module)
    with tracking(tracker, tmp_path / "mine") as tell:
        tell("step", 1, {"loss": 0.5})
    assert run.logged == [(1, {"step/loss": 0.5})]
    assert ended == [{"project": "projected-grpo", "name": "mine"}, "finished"]


def test_tensorboard_writes_into_the_folder_and_is_closed(tmp_path, monkeypatch):
    made = []
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = lambda log_dir: made.append(Writer(log_dir)) or made[-1]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with tracking("tensorboard", tmp_path) as tell:
        tell("step", 1, {"loss": 0.5})
    [writer] = made
    assert writer.log_dir == str(tmp_path / "tensorboard")
    assert (writer.scalars, writer.closed) == ({("step/loss", 1): 0.5}, True)


@pytest.mark.parametrize(("tracker", "module"), [("wandb", "wandb"), ("tensorboard", "torch.utils.tensorboard")])
def test_what_is_not_installed_is_named(tracker, module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingTrackerError, match=f"pip install {tracker}"), tracking(tracker, tmp_path):
        pass


def test_an_unknown_tracker_is_refused(tmp_path):
    with pytest.raises(MissingTrackerError, match="choose one of"), tracking("paper", tmp_path):
        pass
