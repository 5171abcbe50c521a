"""Plots of runs: what is shown as plain data, and its picture.

data = series(runs, clip_thresholds(runs))
draw(data, Path("plot.svg"))
"""

from projected_grpo.results.plots.clip import clip_thresholds
from projected_grpo.results.plots.data import Arm, Curve, Limit, Line, Mean, Panel, PlotData
from projected_grpo.results.plots.drawing import draw
from projected_grpo.results.plots.errors import NothingToPlotError, PlotError, PlotPathError
from projected_grpo.results.plots.files import format_of
from projected_grpo.results.plots.series import series

__all__ = [
    "Arm",
    "Curve",
    "Limit",
    "Line",
    "Mean",
    "NothingToPlotError",
    "Panel",
    "PlotData",
    "PlotError",
    "PlotPathError",
    "clip_thresholds",
    "draw",
    "format_of",
    "series",
]
