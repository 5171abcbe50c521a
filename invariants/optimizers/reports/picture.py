"""The guarantee map: how far routing leaves vanilla's path, against how much leaks; a dot for each optimizer."""

import io
import math
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from invariants.optimizers.guarantees import SPACES, Figures
from invariants.optimizers.report import OptimizerReport, Survey
from invariants.optimizers.reports.rows import GROUPS, group_of
from invariants.reports.files import write_bytes
from invariants.reports.rows import writable
from reference import Space

COLOURS = {"linear": "#2a9d8f", "separable": "#457b9d", "coupled": "#e76f51", "elsewhere": "#8d6a9f"}
MARKERS = {"linear": "s", "separable": "o", "coupled": "^", "elsewhere": "D"}
LEAST = {"x": 1e-17, "y": 1e-4}  # what is exactly zero is drawn here
MOST = 1e4
TITLES = {
    "gradient": "gradient space: a state for each set",
    "update": "update space: one state, updates are split",
    "displacement": "displacement space: all learned is split",
}


def draw(survey: Survey, path: Path) -> None:
    """Writes the picture, with the same bytes for the same survey and version of matplotlib. Raises ReportPathError."""
    with matplotlib.rc_context({"svg.hashsalt": "guarantee map", "svg.fonttype": "none", "font.size": 8}):
        figure = Figure(figsize=(13, 5.2), layout="constrained")
        panels = figure.subplots(1, len(SPACES), sharey=True, width_ratios=[2, 1, 1])
        for axes, space in zip(panels, SPACES, strict=True):
            panel(axes, survey, space, room=140 if space == "gradient" else 60)
        panels[0].set_ylabel("largest hack-ward share of an update of the deployed vectors")
        handles = [
            matplotlib.lines.Line2D([], [], marker=MARKERS[key], color=COLOURS[key], linestyle="", label=GROUPS[key])
            for key in COLOURS
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
        drawn = io.BytesIO()
        figure.savefig(
            drawn, format=path.suffix.removeprefix("."), metadata={"Date": None} if path.suffix == ".svg" else {}
        )
    write_bytes(path, drawn.getvalue())


def panel(axes: Axes, survey: Survey, space: Space, room: float) -> None:
    """One space."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(LEAST["x"] / 3, MOST * 30)
    axes.set_ylim(LEAST["y"] / 2, 1.5)
    axes.set_title(TITLES[space], fontsize=9)
    axes.set_xlabel("distance from training without routing, relative")
    axes.axvspan(LEAST["x"] / 3, 1e-9, color="#2a9d8f", alpha=0.08, linewidth=0)
    axes.grid(which="major", color="#e9ecef", linewidth=0.6)
    axes.set_yticks([LEAST["y"], 1e-3, 1e-2, 1e-1, 1], ["0", "0.1 %", "1 %", "10 %", "100 %"])
    dots = [(report, place(report, space)) for report in survey.reports if report.ran]
    for report, at in dots:
        if at is not None:
            key = group_of(report)
            axes.plot(*at, marker=MARKERS[key], color=COLOURS[key], markersize=5, alpha=0.6, markeredgewidth=0)
    named(axes, [(report.name, at) for report, at in dots if at is not None], room)


def place(report: OptimizerReport, space: Space) -> tuple[float, float] | None:
    """Where an optimizer stands; None where nothing was measured."""
    figures: Figures | None = report.spaces[space].figures
    if figures is None:
        return None
    x = figures.deviation if math.isfinite(figures.deviation) else MOST
    return min(max(x, LEAST["x"]), MOST), max(figures.leak, LEAST["y"])


def named(axes: Axes, dots: list[tuple[str, tuple[float, float]]], room: float) -> None:
    """Writes the names that have room; of a crowd those in ALWAYS first, and then the first in the alphabet.

    room: the width of the panel, in widths of a letter.
    """
    taken: list[tuple[float, float, float]] = []  # left, right, height, as shares of the panel
    (low, high), (bottom, top) = ((math.log10(a), math.log10(b)) for a, b in (axes.get_xlim(), axes.get_ylim()))
    for name, (x, y) in sorted(dots, key=lambda dot: (dot[0] not in ALWAYS, dot[0].lower())):
        at, height = (math.log10(x) - low) / (high - low), (math.log10(y) - bottom) / (top - bottom)
        width = (len(name) + 1) / room
        leftward = at + width > 1
        left = at - width if leftward else at
        if any(left < b and a < left + width and abs(height - h) < LINE for a, b, h in taken):
            continue
        taken.append((left, left + width, height))
        offset, side = ((-4, 3), "right") if leftward else ((4, 3), "left")
        axes.annotate(
            writable(name), (x, y), xytext=offset, textcoords="offset points", fontsize=6.5, ha=side, parse_math=False
        )


ALWAYS = ("SGD", "AdamW", "Lion", "Prodigy")
LINE = 0.035  # height of a line of text, as a share of the panel
