"""A summary as Markdown, CSV, JSON, and on a terminal."""

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from projected_grpo.experiment.summary import Estimate, Gauge, Row, Summary
from projected_grpo.whole_files import whole

HEADINGS = (
    "arm", "hack as trained", "solve as trained", "hack", "solve", "format", "alive", "hack off V", "solve off V",
    "hack less post-hoc", "solve less post-hoc", "beats it", "hack less random V",
)  # fmt: skip
LEGEND = (
    "Means ± standard errors over {n} cells ({warmups} and seeds {seeds}) of the deployed model, on {prompts} held-out "
    "prompts each, behind those of the model as trained; the untrained model has hack {hack:.3f} and solve "
    "{solve:.3f}. Off V: the deployed model without anything along V. Less post-hoc: minus one split of what vanilla "
    "has learned, along the same V, paired by cell, with a 95 % bootstrap interval. Alive: runs whose deployed model "
    "keeps the form and solves or hacks at all. Windup, of erase: how far the optimizer's own point is from the start "
    "at the end, beside how far the model is."
)


def as_json(summary: Summary) -> str:
    """Everything, with every digit."""
    return json.dumps(asdict(summary), indent=1) + "\n"


def write(path: Path, text: str) -> None:
    """Writes a whole file or leaves what was there."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def from_json(text: str) -> Summary:
    """The summary that `as_json` has written."""
    plain = json.loads(text)
    rows = [Row(**{name: _estimates(value) for name, value in row.items()}) for row in plain.pop("rows")]
    gauges = [Gauge(**gauge) for gauge in plain.pop("gauges")]
    warmups, seeds = (tuple(plain.pop(name)) for name in ("warmups", "seeds"))
    return Summary(rows=tuple(rows), gauges=tuple(gauges), warmups=warmups, seeds=seeds, **plain)


def as_csv(summary: Summary) -> str:
    """One line an arm; estimates as mean, standard error, and bounds."""
    lines = [_flat(asdict(row)) for row in summary.rows]
    names = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def as_markdown(summary: Summary) -> str:
    """The table with its question and its legend, and the gauges where some run has died."""
    modes = list(summary.rows[0].hack_by_mode) if summary.by_mode else []
    wound = any(row.windup is not None for row in summary.rows)
    headings = [*HEADINGS, *(["windup"] if wound else []), *(f"hack under {mode}" for mode in modes)]
    lines = [f"**{summary.question}**", "", _line(headings), "|---|" + "--:|" * (len(headings) - 1)]
    lines += [
        _line([
            *_cells(row), *(["" if row.windup is None else f"{row.windup.mean:.2f}"] if wound else []),
            *(f"{row.hack_by_mode[mode]:.2f}" for mode in modes),
        ])
        for row in summary.rows
    ]  # fmt: skip
    lines += ["", legend(summary)]
    if summary.table:
        lines += ["", *_small_table(summary)]
    if any(gauge.died for gauge in summary.gauges):
        lines += ["", _line(GAUGE_HEADINGS), "|---|" + "--:|" * (len(GAUGE_HEADINGS) - 1)]
        lines += [_line(_gauge_cells(gauge)) for gauge in summary.gauges]
    made = ", ".join(f"{name} {version}" for name, version in summary.made_with.items())
    lines += ["", f"`projected-grpo experiment {summary.name}`, configuration {summary.digest}; {made}."]
    return "\n".join(lines) + "\n"


def _small_table(summary: Summary) -> list[str]:
    """Hack / solve of what varies in two ways; dead where no run has lived."""
    columns = list(summary.table)
    lines = ["Hack / solve of the deployed model, with standard errors:", ""]
    lines += [_line(["", *columns]), "|---|" + "--:|" * len(columns)]
    for rule in summary.table[columns[0]]:
        rows = [summary.row(summary.table[column][rule]) for column in columns]
        lines.append(_line([rule, *map(_hack_and_solve, rows)]))
    return lines


def _hack_and_solve(row: Row) -> str:
    if not row.alive:
        return f"dead (format {row.format.mean:.2f})"
    some = f", dead in {row.hack.n - row.alive} of {row.hack.n}" if row.alive < row.hack.n else ""
    return f"{_with_error(row.hack)} / {_with_error(row.solve)}{some}"


def as_table(summary: Summary) -> Table:
    """As a terminal has it, without the comparisons' intervals."""
    table = Table(title=f"{summary.name}: {summary.question}", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column(HEADINGS[0])
    for heading in HEADINGS[1:]:
        table.add_column(heading, justify="right")
    for row in summary.rows:
        table.add_row(*_cells(row))
    return table


def legend(summary: Summary) -> str:
    """What the columns mean."""
    warmups = f"warm-up{'s' if len(summary.warmups) > 1 else ''} {' '.join(map(str, summary.warmups))}"
    return LEGEND.format(
        n=len(summary.warmups) * len(summary.seeds), warmups=warmups, seeds=" ".join(map(str, summary.seeds)),
        prompts=summary.prompts, **summary.base,
    )  # fmt: skip


GAUGE_HEADINGS = ("gauge", "limit", "died", "of these flagged", "lived", "of these flagged", "steps before the end")


def _cells(row: Row) -> list[str]:
    return [
        row.arm, f"{row.trained_hack.mean:.3f}", f"{row.trained_solve.mean:.3f}", _with_error(row.hack),
        _with_error(row.solve), f"{row.format.mean:.2f}", f"{row.alive}/{row.hack.n}",
        _with_error(row.off_axes_hack), _with_error(row.off_axes_solve), _difference(row.less_against.get("hack")),
        _difference(row.less_against.get("solve")), row.beats, _difference(row.less_control.get("hack")),
    ]  # fmt: skip


def _gauge_cells(gauge: Gauge) -> list[str]:
    ahead = "" if gauge.steps_ahead is None else f"{gauge.steps_ahead:.0f}"
    return [
        gauge.name, f"{gauge.limit:g}", str(gauge.died), str(gauge.flagged), str(gauge.lived), str(gauge.false_alarms),
        ahead,
    ]  # fmt: skip


def _with_error(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    return f"{estimate.mean:.3f}" + ("" if estimate.error is None else f" ± {estimate.error:.3f}")


def _difference(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    bounds = "" if estimate.low is None else f" ({estimate.low:+.3f} to {estimate.high:+.3f})"
    return f"{estimate.mean:+.3f}{bounds}"


def _line(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


def _estimates(value: Any) -> Any:
    """Estimates from what JSON has of them, alone or by name; anything else as it is."""
    if not isinstance(value, dict):
        return value
    if "mean" in value:
        return Estimate(**value)
    return {name: _estimates(each) for name, each in value.items()}


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, each in value.items():
        flat |= _flat(each, f"{prefix}{name}.") if isinstance(each, dict) else {f"{prefix}{name}": each}
    return flat
