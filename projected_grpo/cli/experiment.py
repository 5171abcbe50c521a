"""`projected-grpo experiment [NAME]`: all arms and controls of a question, one table and one figure."""

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from tyro.conf import arg

from projected_grpo.cli.terminal import show
from projected_grpo.errors import UsageError


def experiment(
    name: Annotated[str, tyro.conf.Positional, arg(metavar="NAME")] = "arms",
    /,
    *,
    out: Annotated[Path, arg(metavar="FOLDER")] = Path("experiments"),
    workers: int = 2,
    seeds: tuple[int, ...] | None = None,
    warmups: tuple[int, ...] | None = None,
    steps: int | None = None,
    device: str = "cpu",
) -> int:
    """Run an experiment: every arm and control, over seeds and warm-ups, in parallel; what is there is not redone.

    arms, arithmetic: vanilla, erase, route, the post-hoc projection and their controls, on two kinds of task. spaces,
    arithmetic_spaces: every space and gate, and what holds when training is pushed; confirm: the best of them on other
    seeds. weak: V knows two of four modes. refresh, k, windup: extracting again, how many axes, and what becomes of
    what erase drops. Writes FOLDER/NAME.md, .csv, .json and .svg, and the runs below FOLDER/NAME.

    Args:
        name: which one.
        out: where runs, tables and figures go.
        workers: runs at a time, each on one thread.
        seeds: of the runs, instead of the experiment's own.
        warmups: seeds of the models that training begins with; 0 is shipped, others take 15 seconds to make, once.
        device: where the models are; workers share it. A run that was begun on another goes on there.
        steps: of each run, to try the machinery out: such a run has not learned what the questions are about.
    """
    from projected_grpo.experiment import EXPERIMENTS, Cell, carry_out, figure, rendering, summary_of

    if name not in EXPERIMENTS:
        raise UsageError(f"There is no experiment {name!r}; choose one of {', '.join(EXPERIMENTS)}.")
    if workers < 1:
        raise UsageError(f"--workers is {workers}; it must be at least 1.")
    asked = EXPERIMENTS[name]
    for what, given in (("seeds", seeds), ("warmups", warmups)):
        if given is not None and (not given or min(given) < 0 or len(set(given)) < len(given)):
            raise UsageError(f"--{what} must be one or more different numbers, each 0 or above.")
    asked = replace(asked, seeds=seeds or asked.seeds, warmups=warmups or asked.warmups)
    if steps is not None:
        if steps < 1:
            raise UsageError(f"--steps is {steps}; it must be at least 1.")
        asked = asked.shortened(steps)
    asked = asked.on(device)
    began = time.perf_counter()
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(name, total=len([*asked.cells()]))

        def tell(cell: Cell, there: bool) -> None:
            progress.update(bar, advance=1, description=cell.name)
            if not there and not console.is_terminal:
                print(f"{time.perf_counter() - began:6.0f} s  {cell.name}", file=sys.stderr, flush=True)

        outcomes = carry_out(asked, out / name, workers=workers, tell=tell)
    summary = summary_of(asked, outcomes)
    for suffix, text in {
        ".md": rendering.as_markdown(summary), ".csv": rendering.as_csv(summary), ".json": rendering.as_json(summary),
    }.items():  # fmt: skip
        rendering.write(out / f"{name}{suffix}", text)
    figure.draw(summary, outcomes, out / f"{name}.svg")
    show(rendering.as_table(summary))
    print(f"{out / name}.md, .csv, .json, .svg: {len(outcomes)} cells in {time.perf_counter() - began:.0f} s")
    return 0
