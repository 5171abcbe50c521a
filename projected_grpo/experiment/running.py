"""Carrying out an experiment: cells in processes of their own, each in its folder, so that what is there is not redone.

A cell that is finished is read; one that was interrupted goes on from its last checkpoint to the same bits. A folder of
another configuration is refused: figures of two experiments never mix.
"""

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

from projected_grpo.experiment.errors import ExperimentError
from projected_grpo.experiment.grid import Cell, Experiment
from projected_grpo.experiment.outcome import Outcome, outcome_of
from projected_grpo.training.config import TrainConfig, as_plain
from projected_grpo.training.folder import CONFIG, LOG, REPORT, write_json

Tell = Callable[[Cell, bool], object]


def carry_out(experiment: Experiment, place: Path, *, workers: int = 2, tell: Tell | None = None) -> list[Outcome]:
    """Runs what is not there yet, and reads all of it.

    Arguments:
        place: the experiment's folder; each cell has one below it.
        workers: processes; each trains on one thread.
        tell: is told of each cell when it is finished, and whether it was there already.

    Raises:
        ExperimentError: a folder holds something else, a run has failed, or a process has died. What was finished
            stays, and the next call goes on from there.
    """
    place.mkdir(parents=True, exist_ok=True)
    configs = {cell.name: _placed(experiment, cell, place) for cell in experiment.cells()}
    for cell in experiment.cells():
        _check(place / cell.name, configs[cell.name])
    told = tell or (lambda cell, there: None)
    due = []
    for cell in experiment.cells():
        if (place / cell.name / REPORT).is_file():
            told(cell, True)
        else:
            due.append(cell)
    for done in _in_processes(experiment, due, configs, place, workers):
        told(done, False)
    return [
        outcome_of(cell, place / cell.name, report=REPORT, log=None if cell.arm.of is not None else LOG)
        for cell in experiment.cells()
    ]


def _placed(experiment: Experiment, cell: Cell, place: Path) -> TrainConfig:
    """What a cell is run with, its folder and its warm-up's model included."""
    config = experiment.config(cell)
    if cell.warmup:
        from projected_grpo.training.policy import SHIPPED  # on demand: it brings transformers along

        model = SHIPPED[config.model.model].folder(cell.warmup)
        config = replace(config, model=replace(config.model, model=str(model)))
    return replace(config, run=replace(config.run, out=(place / cell.name).absolute()))


def _check(folder: Path, config: TrainConfig) -> None:
    """Refuses a folder that was made with another configuration; its place and its device may be others."""
    file = folder / CONFIG
    if not file.is_file():
        return
    there, due = json.loads(file.read_text(encoding="utf-8")), json.loads(json.dumps(as_plain(config)))
    for plain in (there, due):
        plain["run"]["out"] = plain["model"]["model"] = plain["model"]["device"] = None
    if there != due:
        raise ExperimentError(
            f"{folder} holds a run of another configuration; name another folder by --out, or remove that one."
        )


def _in_processes(
    experiment: Experiment, due: list[Cell], configs: dict[str, TrainConfig], place: Path, workers: int
) -> Iterator[Cell]:
    """Yields cells as they are finished; an arm of another's runs waits for those."""
    if not due:
        return
    waiting, running = list(due), dict[Future[None], Cell]()
    left = {cell.name for cell in due}
    others = {process.pid for process in multiprocessing.active_children()}
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_alone)
    try:
        while waiting or running:
            for cell in list(waiting):
                source = _source(experiment, cell)
                if len(running) == workers:
                    break
                if source is None or source.name not in left:
                    waiting.remove(cell)
                    run = place / source.name if source is not None else None
                    running[pool.submit(_made, configs[cell.name], run)] = cell
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                cell = running.pop(future)
                try:
                    future.result()
                except BrokenProcessPool as error:
                    raise ExperimentError(f"The process that ran {cell.name} has died; run again to go on.") from error
                except Exception as error:
                    raise ExperimentError(f"{cell.name} has failed: {error}") from error
                left.discard(cell.name)
                yield cell
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            if process.pid not in others:
                process.terminate()


def _source(experiment: Experiment, cell: Cell) -> Cell | None:
    """The cell whose run is projected, for a post-hoc arm."""
    if cell.arm.of is None:
        return None
    return replace(cell, arm=experiment.by_name[cell.arm.of])


def _alone() -> None:
    """A process that leaves Ctrl-C to its parent, does not outlive it, and shows nothing."""
    import signal
    import threading

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "a process of the pool has one"
    parent.join()
    os._exit(1)


def _made(config: TrainConfig, run: Path | None) -> None:
    """One cell, in this process: trained, or gone on with, or made of a finished run."""
    from projected_grpo.experiment.afterwards import project_afterwards
    from projected_grpo.training.trainer import Trainer

    place = config.run.out
    assert place is not None, "every cell has a folder"
    if run is not None:
        place.mkdir(parents=True, exist_ok=True)
        write_json(place / CONFIG, as_plain(config))
        project_afterwards(config, run, place)
        return
    if place.exists() and not (place / LOG).is_file():
        shutil.rmtree(place)  # it was killed before it had begun
    with Trainer.resume(place) if place.exists() else Trainer.begin(config) as trainer:
        trainer.run()
