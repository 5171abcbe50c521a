"""`projected-grpo train [PRESET]`: GRPO with none, erase or route; `projected-grpo pool RUN`: rollouts of a run."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tyro.conf import arg

from projected_grpo.cli.terminal import show
from projected_grpo.errors import UsageError
from projected_grpo.training.config import TrainConfig
from projected_grpo.training.presets import PRESETS

PRESET_NAMES = ", ".join(PRESETS)


def train_with(preset: TrainConfig, *, named: bool) -> Callable[..., int]:
    """The command with a preset's values as defaults; `named` if the caller has chosen it."""

    def train(
        *,
        config: Annotated[
            TrainConfig, arg(name=""), tyro.conf.OmitArgPrefixes, tyro.conf.EnumChoicesFromValues
        ] = preset,
        resume: Annotated[Path | None, arg(metavar="RUN")] = None,
    ) -> int:
        """Train a policy with GRPO, with a gradient that is left alone, erased along V, or routed.

        The first word may name a preset: tiny (the testbed, seconds on a CPU; taken if left out), arithmetic (the
        other testbed), smoke, fast, full.

        Args:
            resume: the folder of a run to go on with; its own configuration holds, so nothing else is taken.
        """
        return _train(config, resume, asked=named or config != preset)

    return train


def _train(config: TrainConfig, resume: Path | None, *, asked: bool) -> int:
    from projected_grpo.training.trainer import Trainer  # on demand: it brings transformers along

    if resume is not None and asked:
        raise UsageError("--resume goes on with a run as it was configured; leave the other options out.")
    began = time.perf_counter()
    with _stoppable() as stopped, _shown() as (tell, total):
        trainer = Trainer.resume(resume, tell=tell) if resume is not None else Trainer.begin(config, tell=tell)
        with trainer:
            steps, done = trainer.config.grpo.steps, trainer.done
            total(steps)
            report = trainer.run(stop=stopped)
    if report is None:
        print(
            f"projected-grpo: stopped after step {trainer.done}, and nothing is lost; go on with\n"
            f"    projected-grpo train --resume {trainer.place}",
            file=sys.stderr,
        )
        return 130
    show(report.table())
    if done == steps:
        print(f"{trainer.place}: was finished already")
    else:
        earlier = f", {done} of them earlier," if done else ""
        print(f"{trainer.place}: {steps} of {steps} steps{earlier} in {time.perf_counter() - began:.0f} s")
    return 0


@contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """A block in which Ctrl-C, or a termination, is a question that the trainer answers after its step; the second one
    interrupts."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        os.write(2, b"\nprojected-grpo: stopping after this step; again to stop at once\n")  # print is not re-entrant

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _shown() -> Iterator[tuple[Callable[[str, int, dict[str, Any]], None], Callable[[int], None]]]:
    """A block with a progress bar on a terminal, and the events that a person watches as lines on stderr.

    Gives what is told of events, and what is told how many steps there are.
    """
    from projected_grpo.logs.stream import Stream, brief

    console, stream = Console(stderr=True, highlight=False, soft_wrap=True), Stream()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("training", total=None)

        def tell(event: str, step: int, values: Mapping[str, Any]) -> None:
            if event == "step" and console.is_terminal:
                progress.update(bar, completed=step, description=brief(values))
                return
            for line in stream.lines(event, step, values):
                progress.console.print(line, markup=False)

        yield tell, lambda steps: progress.update(bar, total=steps)


def command_and_rest(args: list[str]) -> tuple[Callable[..., int], list[str]]:
    """The command with the preset that the first word names, tiny if it names none, and the other words.

    Raises UsageError for a word that is no preset.
    """
    if not args or args[0].startswith("-"):
        return train_with(PRESETS["tiny"], named=False), args
    if args[0] not in PRESETS:
        raise UsageError(f"There is no preset {args[0]!r}; choose one of {PRESET_NAMES}.")
    return train_with(PRESETS[args[0]], named=True), args[1:]
