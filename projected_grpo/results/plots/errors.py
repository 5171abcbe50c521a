"""What plots refuse."""

from projected_grpo.errors import ProjectedGRPOError


class PlotError(ProjectedGRPOError):
    """Base of what is wrong with a plot."""


class NothingToPlotError(PlotError):
    """There is no complete run, or none that has a number."""


class PlotPathError(PlotError, OSError):
    """A plot cannot be written where it was asked for."""
