"""What a table says of one run: four rates, each a mean over the last five steps, and over how many values.

As trained: the student's rollouts of the last five steps. As deployed: what the logs say of the model as it would be
used. In a text log that is, of routing, every value of the ablated model in the last five rows; other arms have nothing
to ablate, so they are deployed as trained. A JSONL log has evaluations on held-out prompts of every arm, so there the
deployed figures of all arms are those of the evaluations in the last five steps, and none where there is no evaluation:
like is compared with like. What was evaluated before the first step is of no step.
"""

import math
from dataclasses import dataclass
from typing import Literal

import polars as pl

from projected_grpo.results.run import LoggedRun, Settings

LAST = 5
TRAINED = ("hack", "solve")
DEPLOYED = ("hack_deployed", "solve_deployed")
FIGURES = (*TRAINED, *DEPLOYED)
VANILLA = "none"


@dataclass(frozen=True)
class Figure:
    """A mean over n values; None if there is none."""

    value: float | None
    n: int


def figures(run: LoggedRun) -> dict[str, Figure]:
    """The four rates of a run."""
    last = run.steps.tail(LAST)
    trained = {name: _mean(last, f"{name}_student") for name in TRAINED}
    looks = run.evaluations.filter(pl.col("step") >= last["step"].min())
    deployed = {name: _mean(looks, f"{name}_deployed") for name in trained}
    if run.intervention != "route" and logs_of(run) == "text":
        deployed = trained
    return {**trained, **{f"{name}_deployed": figure for name, figure in deployed.items()}}


def logs_of(run: LoggedRun) -> Literal["text", "JSONL"]:
    """The kind of its log, which decides what deployed figures are of: runs of two kinds are not comparable in them."""
    return "JSONL" if run.format.startswith("jsonl") else "text"


def arm(run: LoggedRun) -> str:
    """What runs are grouped by: the intervention, and everything that is not as usual about it.

    The space is named where the log says it; vanilla runs have none, whatever their V was measured with.
    """
    words: list[str] = [run.intervention]
    if run.intervention != "none":
        words += [f"{run.space} space"] if run.space else []
        words += [f"{run.basis} V"] if run.basis != "hack" else []
    words += [*run.variant, *([f"{run.reward} reward"] if run.reward != "foolable" else [])]
    return ", ".join(words)


def configuration(settings: Settings) -> str:
    """The configuration in words; runs are of the same one if and only if these are the same."""
    said = (
        settings.preset, settings.model, None if settings.steps is None else f"{settings.steps} steps",
        None if settings.group is None else f"group {settings.group}",
        None if settings.mix is None else f"mix {settings.mix:.12g}",
    )  # fmt: skip
    names = ("preset", "model", "steps", "group", "mix")
    return ", ".join(word or f"{name} unknown" for name, word in zip(names, said, strict=True))


def _mean(frame: pl.DataFrame, name: str) -> Figure:
    values = frame[name].drop_nulls().to_list() if name in frame.columns else []
    return Figure(math.fsum(values) / len(values), len(values)) if values else Figure(None, 0)
