"""The picture: rows of quantities, a column for each arm, legends above the rows and the sources in small print."""

import io
import json
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from projected_grpo.results.plots.data import Arm, Panel, PlotData
from projected_grpo.results.plots.files import format_of, write_bytes
from projected_grpo.results.plots.panels import bounds, draw_panel
from projected_grpo.results.plots.quantities import HELD_OUT, RATES, ROWS, Row
from projected_grpo.results.plots.style import GREY, LIMITS, PALE, PALE_WIDTH, Look, looks, name_of

# Inches. A block of two or three arms is as wide as a page's text, one arm as wide as a column.
PAGE, COLUMN, MOST = 7.2, 3.5, 3
LEFT, RIGHT, GAP = 0.52, 0.17, 0.18
HEIGHT, LABEL_LINE, MODELS, HEADING, LEGEND_LINE, LEGEND_GAP = 1.25, 0.14, 0.23, 0.19, 0.125, 0.07
BELOW, LAST_BELOW, FOOT_LINE = 0.24, 0.4, 0.115
LETTER, HANDLE = 0.0535, 0.42  # of a legend: a letter's width, and what an entry takes besides
BIG = 0.083  # a letter's width in an arm's label
SMALL = 0.0455  # a letter's width in the small print

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "runs", "svg.fonttype": "none", "font.family": "DejaVu Sans", "font.size": 7.5,
    "axes.unicode_minus": True, "text.parse_math": False, "text.usetex": False, "legend.fontsize": 7,
    "axes.labelsize": 7.5, "xtick.labelsize": 7, "ytick.labelsize": 7,
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """Of a legend."""

    label: str
    handle: Line2D


def draw(data: PlotData, path: Path) -> None:
    """Writes a .svg, .png or .json, with the same bytes for the same data and matplotlib. Raises PlotPathError."""
    format = format_of(path)
    if format == "json":
        write_bytes(path, (json.dumps(data.as_json(), indent=1, allow_nan=False) + "\n").encode())
        return
    drawn = io.BytesIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()  # whatever the user's own style is
        matplotlib.rcParams.update(STYLE)
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # of a file's name
        figure = compose(data)
        metadata = {"Date": None, "Creator": None} if format == "svg" else {"Software": None}
        figure.savefig(drawn, format=format, dpi=200, metadata=metadata)
    write_bytes(path, drawn.getvalue())


def compose(data: PlotData) -> Figure:
    """Blocks of at most three arms below one another, each with all rows."""
    across = min(len(data.arms), MOST)
    width = COLUMN if across == 1 else PAGE
    blocks = [data.arms[n : n + MOST] for n in range(0, len(data.arms), MOST)]
    rows = [row for row in ROWS if row.key in data.rows]
    legends = {row.key: legend_of(row, data) for row in rows}
    foot = small_print(data, int((width - 0.2) / SMALL))
    lines = {row.key: -(-len(legends[row.key]) // columns(legends[row.key], width)) for row in rows}
    room = (width - LEFT - RIGHT - GAP * (across - 1)) / across
    labels = {arm.label: textwrap.wrap(arm.label, int(room / BIG)) for arm in data.arms}
    titles = LABEL_LINE * max(map(len, labels.values()))
    block = titles + MODELS + sum(HEADING + LEGEND_LINE * lines[row.key] + LEGEND_GAP + HEIGHT + BELOW for row in rows)
    block += LAST_BELOW - BELOW
    height = block * len(blocks) + FOOT_LINE * len(foot) + 0.15
    figure, top = Figure(figsize=(width, height)), height
    shown = looks(data)
    for arms in blocks:
        lefts = [LEFT + n * (room + GAP) for n in range(len(arms))]
        for arm, left in zip(arms, lefts, strict=True):
            middle = (left + room / 2) / width
            for n, line in enumerate(labels[arm.label]):
                place = (top - 0.05 - LABEL_LINE * n) / height
                figure.text(middle, place, line, weight="bold", size=8.5, ha="center", va="top")
            place = (top - 0.06 - titles) / height
            figure.text(middle, place, arm.models, size=7, ha="center", va="top", color=GREY)
        top -= titles + MODELS
        for row in rows:
            figure.text(0.08 / width, (top - 0.04) / height, heading(row, data), weight="bold", size=7.5, va="top")
            top -= HEADING
            add_legend(figure, legends[row.key], top, width, height)
            top -= LEGEND_LINE * lines[row.key] + LEGEND_GAP + HEIGHT
            for arm, left in zip(arms, lefts, strict=True):
                area = (left / width, top / height, room / width, HEIGHT / height)
                add_panel(figure, area, arm, row, data, shown, first=arm is arms[0], last=row is rows[-1])
            top -= LAST_BELOW if row is rows[-1] else BELOW
    for n, line in enumerate(foot):
        figure.text(0.1 / width, (top - FOOT_LINE * n) / height, line, size=6, va="top", color=GREY)
    return figure


def add_panel(
    figure: Figure, place: tuple[float, float, float, float], arm: Arm, row: Row, data: PlotData,
    shown: dict[str, Look], *, first: bool, last: bool,
) -> None:  # fmt: skip
    """One panel on the axes that its row shares in all arms."""
    axes = figure.add_axes(place)
    span, logarithmic = bounds(row, [_panel(each, row) for each in data.arms])
    if logarithmic:
        axes.set_yscale("log")
    axes.set_ylim(*span)
    most = max(each.steps for each in data.arms)
    axes.set_xlim(-0.02 * most, max(1.02 * most, 1))
    draw_panel(axes, _panel(arm, row), shown)
    if first:
        axes.set_ylabel(row.unit)
        axes.yaxis.set_label_coords(-0.4 / (place[2] * figure.get_figwidth()), 0.5)
    else:
        axes.tick_params(labelleft=False)
    if last:
        axes.set_xlabel("optimizer step", labelpad=2)


def heading(row: Row, data: PlotData) -> str:
    """A row's title; that of the rates says which model the bold curves are of."""
    if row.key != RATES:
        return row.title
    bold = {c.model for arm in data.arms for c in _panel(arm, row).curves if c.primary}
    return f"{row.title}, of the model {'as deployed' if bold == {'as deployed'} or len(bold) > 1 else 'as trained'}"


def legend_of(row: Row, data: PlotData) -> list[Entry]:
    """What the curves and limits of a row are, each look once."""
    panels, shown = [_panel(arm, row) for arm in data.arms], looks(data)
    curves = [curve for panel in panels for curve in panel.curves]
    entries: dict[str, Entry] = {}
    for curve in sorted(curves, key=lambda curve: not curve.primary):
        label, look = name_of(curve, curves), shown[curve.key]
        width, alpha = (look.width, 1.0) if curve.primary else (PALE_WIDTH, PALE)
        marked = any(each.on == HELD_OUT and each.primary and each.key == curve.key for each in curves)
        marker = look.marker if curve.primary and marked else ""
        entries[label] = Entry(label, Line2D([], [], color=look.colour, linestyle=look.dashes, linewidth=width,
                               alpha=alpha, marker=marker, markersize=3.2, markeredgewidth=0))  # fmt: skip
    for limit in (limit for panel in panels for limit in panel.limits):
        look = LIMITS[limit.of]
        label = limit.label if row.key == "norms" else f"{limit.label}: {limit.value:g}"
        entries.setdefault(label, Entry(label, Line2D([], [], color=look.colour, linestyle=look.dashes,
                                                      linewidth=look.width)))  # fmt: skip
    return list(entries.values())


def columns(entries: Sequence[Entry], width: float) -> int:
    """How many entries of a legend stand side by side."""
    widths = [len(entry.label) * LETTER + HANDLE for entry in entries]
    if sum(widths) < width - 0.15:
        return len(entries)
    return max(1, int((width - 0.15) / max(widths)))


def add_legend(figure: Figure, entries: Sequence[Entry], top: float, width: float, height: float) -> None:
    """A line or more above the panels of a row."""
    legend = figure.legend(
        [entry.handle for entry in entries], [entry.label for entry in entries], loc="upper left",
        bbox_to_anchor=(0.08 / width, top / height), ncols=columns(entries, width), frameon=False, borderpad=0,
        borderaxespad=0, handlelength=2.6, handletextpad=0.5, columnspacing=1.2, labelspacing=0.25,
    )  # fmt: skip
    for text in legend.get_texts():
        assert isinstance(text, Text)
        text.set_parse_math(False)


def small_print(data: PlotData, letters: int) -> list[str]:
    """Lines of so many letters: notes, and the files that the curves were read from, each in one line if it fits."""
    hard = "\N{NO-BREAK SPACE}"
    files = [f"Sources of {arm.label}: {'; '.join(s.replace(' ', hard) for s in arm.sources)}." for arm in data.arms]
    lines = [
        line
        for text in (*data.notes, *files)
        for line in textwrap.wrap(text, letters, subsequent_indent="    ", break_on_hyphens=False)
    ]
    return [line.replace(hard, " ") for line in lines]


def _panel(arm: Arm, row: Row) -> Panel:
    return next(panel for panel in arm.panels if panel.row == row.key)
