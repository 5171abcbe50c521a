"""Runs read from the logs of every format that ever was, and the tables that are made of them."""

from projected_grpo.results.errors import NoLogsError, ResultsError, UnknownFormatError, UnreadableLogError
from projected_grpo.results.reading import read_run, read_runs
from projected_grpo.results.run import LoggedRun, Settings

__all__ = [
    "LoggedRun",
    "NoLogsError",
    "ResultsError",
    "Settings",
    "UnknownFormatError",
    "UnreadableLogError",
    "read_run",
    "read_runs",
]
