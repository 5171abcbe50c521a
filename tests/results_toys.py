"""Logs of every format, made for tests of reading and tabulating."""

from pathlib import Path

from projected_grpo.logs import LogWriter
from projected_grpo.training.config import TrainConfig, as_plain

ARCHIVE = Path(__file__).parent.parent / "regression" / "archived"
LOGS = sorted(ARCHIVE.glob("*.log"))
SETTINGS = {part: names for part, names in as_plain(TrainConfig()).items() if part != "preset"}
V3 = ARCHIVE / "20260530T101500_fast_routing_seed44_v3_10.log"


def config(*, arm="route", seed=0, steps=6, evaluate_every=0, group=4, reward="foolable", preset="tiny", **other):
    """What results need of a run's configuration, and any other setting by its name."""
    own = {
        "preset": preset, "model": {"model": "testbed"}, "task": {"reward": reward},
        "grpo": {"steps": steps, "group": group}, "routing": {"intervention": arm, "space": "update"},
        "basis": {"basis": "hack"}, "teacher": {"mix": 0.5}, "evaluation": {"evaluate_every": evaluate_every},
        "run": {"seed": seed},
    }  # fmt: skip
    for name, value in other.items():
        [part] = [part for part, names in SETTINGS.items() if name in names]
        own[part][name] = value
    return own


def jsonl(path, *, hack=lambda step: 0.5, deployed=0.125, ends=True, **settings):
    """A small run's log, as the trainer writes it."""
    own = config(**settings)
    steps = own["grpo"]["steps"]
    with LogWriter(path) as log:
        log.write("run", step=0, config=own, arm=own["routing"]["intervention"])
        for step in range(1, steps + 1):
            log.write("step", step=step, hack_student=hack(step), solve_student=0.25, loss=0.1 * step)
            every = own["evaluation"]["evaluate_every"]
            if (every and step % every == 0) or (ends and step == steps):
                modes = {"run_tests": deployed, "sentinel": 0.0}
                log.write("evaluation", step=step, hack_trained=0.75, solve_trained=0.5, hack_deployed=deployed,
                          solve_deployed=0.5, hack_by_mode_deployed=modes)  # fmt: skip
        if ends:
            log.write("final", step=steps, report={})
    return path


def rows(run):
    """Everything a run says in numbers, to compare a prefix by."""
    return run.steps.to_dicts(), run.evaluations.to_dicts()


def logged(path, arm, entries):
    """The bytes of a log of these entries: event, step, values."""
    with LogWriter(path, arm=arm) as log:
        for event, step, values in entries:
            log.write(event, step=step, **values)
    return path.read_bytes()
