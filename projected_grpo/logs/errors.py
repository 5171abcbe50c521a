"""What logs refuse."""

from projected_grpo.errors import ProjectedGRPOError


class LogError(ProjectedGRPOError):
    """Base of what is wrong with a log."""


class UndeclaredMetricError(LogError):
    """A value was to be written that no declaration speaks of, or one of another type than declared."""


class DamagedLogError(LogError):
    """A line is not what was written."""


class MissingTrackerError(LogError):
    """What should be told of a run is not installed."""
