"""A run as a log tells it: what decided it, and its figures step by step, in today's names whatever its format."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from projected_grpo.routing import Intervention


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What makes two runs comparable; None where a log does not say."""

    preset: str | None = None
    model: str | None = None
    steps: int | None = None
    group: int | None = None
    mix: float | None = None


@dataclass(frozen=True, kw_only=True)
class LoggedRun:
    """One run.

    `steps` has a row for each optimizer step and `evaluations` one for each look at the model, both with a column
    "step" and the columns that `projected_grpo.logs.METRICS` declares; null where nothing was measured. Columns of old
    formats that mean something else than today's metrics keep a name of their own, with the format in it.
    """

    source: Path
    format: str  # "v0" to "v3" of the text logs, or "jsonl-1"
    intervention: Intervention
    basis: str = "hack"  # or the control: "random", "flipped"
    space: str | None = None
    reward: str = "foolable"  # or the control: "strict"
    variant: tuple[str, ...] = ()  # what else about its routing or V is not as the preset has it, in words
    seed: int
    settings: Settings
    others: Mapping[str, str] = field(default_factory=dict)  # settings of neither the arm nor the configuration
    steps: pl.DataFrame
    evaluations: pl.DataFrame
    complete: bool
    problem: str = ""  # why it is not complete
