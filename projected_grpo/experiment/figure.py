"""The figure of an experiment: hack and solve of each arm as deployed, every cell a point, the mean a bar."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from projected_grpo.experiment.outcome import Outcome
from projected_grpo.experiment.summary import Summary
from projected_grpo.results.plots.style import BLUE, GREY, PALE_GREY, VERMILLION
from projected_grpo.whole_files import whole

PANELS = (("hack", VERMILLION, "o"), ("solve", BLUE, "s"))
INCHES_AN_ARM, WIDTH = 0.27, 8.5


def draw(summary: Summary, outcomes: Sequence[Outcome], file: Path) -> None:
    """Draws into a PNG or SVG file, as its name says; the same outcomes draw the same bytes."""
    arms = [row.arm for row in summary.rows]
    figure = Figure(figsize=(WIDTH, 1.3 + INCHES_AN_ARM * len(arms)), layout="constrained")
    axes = figure.subplots(1, len(PANELS), sharey=True)
    for panel, (what, colour, marker) in zip(axes, PANELS, strict=True):
        for at, row in enumerate(summary.rows):
            values = [each.deployed[what] for each in outcomes if each.cell.arm.name == row.arm]
            mean = getattr(row, what).mean
            panel.plot([mean, mean], [at - 0.3, at + 0.3], color="black", linewidth=1.6, solid_capstyle="butt")
            panel.plot(values, [at] * len(values), marker, color=colour, markersize=4, alpha=0.55, linestyle="none")
        panel.axvline(summary.base[what], color=GREY, linewidth=1.0, linestyle=(0, (1.1, 1.2)))
        panel.set_xlim(-0.03, 1.03)
        panel.set_xlabel(f"{what}, as deployed")
        panel.grid(axis="x", color=PALE_GREY, linewidth=0.6)
        panel.set_axisbelow(True)
        for side in ("top", "right", "left"):
            panel.spines[side].set_visible(False)
        panel.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(arms)), arms)
    axes[0].set_ylim(len(arms) - 0.4, -0.6)
    figure.suptitle(f"{summary.question}  Dotted: untrained. Bars: means of the points.", fontsize=9, x=0.01, ha="left")
    undated = {"Date": None} if file.suffix == ".svg" else {}
    with whole(file) as partial, matplotlib.rc_context({"svg.hashsalt": summary.name, "svg.fonttype": "none"}):
        figure.savefig(partial, format=file.suffix.removeprefix("."), dpi=150, metadata=undated)
