"""Where reports are printed."""

import sys

from rich.console import Console


def console() -> Console:
    """The terminal as wide as it is; anything else (a pipe, a log) wide enough for a table to stay in one line."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)
