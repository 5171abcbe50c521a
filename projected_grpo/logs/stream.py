"""The stream for people: a table of steps with its legend, and a line for every other event, from the declaration.

    step     loss   reward      hack  ...
       1  -0.0012    0.412     12/96  ...
       2  evaluation  hack_trained 3/16  solve_trained 5/16  ...

Columns have a fixed order and are only appended. A rate is a fraction with its denominator, and null is what was not
measured or is not defined.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from projected_grpo.logs.metrics import ALL, METRICS, Metric, declared

EVERY = 20  # rows between two headers
COLUMNS = tuple(metric for metric in METRICS if metric.event == "step" and metric.heading)
LONGEST = {"loss": 8, "reward": 7, "hack": 9, "solve": 9, "seconds": 7}  # cells that are wider than their heading
BRIEF = ("loss", "hack", "solve")  # what a progress bar has room for
STEP = 6


class Stream:
    """Turns events into lines."""

    def __init__(self) -> None:
        self._rows = 0

    def lines(self, event: str, step: int, values: Mapping[str, Any]) -> Iterator[str]:
        """What is shown of an event; nothing of most checkpoints and ends."""
        if event in ("run", "resumed"):
            yield from legend()
            self._rows = 0
        if event == "step":
            if self._rows % EVERY == 0:
                yield header()
            self._rows += 1
            yield f"{step:>{STEP}}" + "".join(f"  {metric.cell(values):>{_width(metric)}}" for metric in COLUMNS)
        elif (told := told_of(event, values)) or event == "resumed":
            yield f"{step:>{STEP}}  {event}  {told}".rstrip()


def header() -> str:
    """The headings of the columns."""
    return f"{'step':>{STEP}}" + "".join(f"  {metric.heading:>{_width(metric)}}" for metric in COLUMNS)


def legend() -> Iterator[str]:
    """What each column is."""
    for metric in COLUMNS:
        unit = "" if metric.unit in ("1", "share", "") else f" [{metric.unit}]"
        share = "share " if metric.unit == "share" and metric.meaning.startswith("of ") else ""
        of = f"; out of {metric.of}" if metric.of else ""
        arms = "" if metric.arms == ALL else f"; only {' and '.join(metric.arms)}"
        yield f"# {metric.heading:<{STEP * 2}}  {metric.name}: {share}{metric.meaning}{of}{unit}{arms}"
    yield f"# {'null':<{STEP * 2}}  not measured, or not defined in this arm"


def told_of(event: str, values: Mapping[str, Any]) -> str:
    """The metrics of an event that have a heading and were measured, each with its heading; texts by themselves."""
    return "  ".join(
        " ".join(values[metric.name].split()) if metric.kind == "str" else f"{metric.heading} {metric.cell(values)}"
        for metric in declared(event).values()
        if metric.heading and values.get(metric.name) is not None
    )


def brief(values: Mapping[str, Any]) -> str:
    """A step in a few words."""
    return "  ".join(f"{metric.heading} {metric.cell(values)}" for metric in COLUMNS if metric.heading in BRIEF)


def _width(metric: Metric) -> int:
    return LONGEST.get(metric.heading, max(8, len(metric.heading)))
