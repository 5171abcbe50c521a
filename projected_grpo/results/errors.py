"""What reading runs refuses."""

from projected_grpo.errors import ProjectedGRPOError


class ResultsError(ProjectedGRPOError):
    """Base of what is wrong with logs that results are to be made of."""


class NoLogsError(ResultsError):
    """A path, a folder or a pattern that leads to no log."""


class UnknownFormatError(ResultsError):
    """A log of a format that is not known: other columns, or another schema version."""


class UnreadableLogError(ResultsError):
    """A log that does not say which run it is of, or says it twice and differently."""
