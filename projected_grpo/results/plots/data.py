"""What a plot shows, as plain data: the drawing adds nothing to it, so these numbers are what tests pin."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Model = Literal["as trained", "as deployed"]
VERSION = 1  # of as_json


@dataclass(frozen=True, kw_only=True)
class Line:
    """One run's series. Of a metric of every step, None is a gap; of one of evaluations, only what was measured.

    steps: how many were done, so 1 after the first, whatever number the log has for it.
    """

    seed: int
    source: str
    steps: tuple[int, ...]
    values: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Mean:
    """Over seeds, each counted once however often it was run, at every step that a seed has.

    values: None where only one of several seeds has a value: a single seed is no mean of many.
    std: across seeds, with n - 1; None where fewer than two have a value.
    n: seeds that have a value.
    """

    steps: tuple[int, ...]
    values: tuple[float | None, ...]
    std: tuple[float | None, ...]
    n: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One metric of one arm.

    key: what is drawn alike in all arms, as "hack", or "hack under sentinel".
    metric: the column, by its declared name.
    model: which model the numbers are of.
    on: what they were measured on.
    primary: drawn bold; anything else is pale.
    seeds: different ones that have a value.
    """

    key: str
    metric: str
    model: Model
    on: str
    primary: bool
    seeds: int
    lines: tuple[Line, ...]
    mean: Mean


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A horizontal line: a threshold that the metric `of` is judged by."""

    of: str
    label: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One row's quantities in one arm; without curves where the arm's runs have none of them."""

    row: str
    curves: tuple[Curve, ...]
    limits: tuple[Limit, ...]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """An intervention with its control, reward and configuration: a column of panels.

    models: which model is bold and which is pale, in words.
    sources: a line for each run: its file, seed and steps.
    """

    label: str
    models: str
    seeds: tuple[int, ...]
    steps: int
    panels: tuple[Panel, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PlotData:
    """Everything that is drawn.

    rows: keys of the rows that any run has numbers for, from top to bottom.
    notes: what is left out, and what a reader has to know about the runs.
    """

    arms: tuple[Arm, ...]
    rows: tuple[str, ...]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists, numbers and strings; equal for equal runs wherever their files are."""
        return {"version": VERSION, **asdict(self)}
