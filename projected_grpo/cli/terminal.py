"""Where reports are printed."""

import os
import sys

from rich.console import Console, RenderableType


def width() -> int:
    """The terminal as wide as it is; anything else (a pipe, a log) wide enough for a table to stay in one line."""
    return Console().width if sys.stdout.isatty() else 160


def show(report: RenderableType) -> None:
    """Prints to stdout, to anything but a terminal without padding."""
    console = Console(highlight=False, width=width())
    if sys.stdout.isatty():
        console.print(report, crop=False)
        return
    with console.capture() as captured:
        console.print(report, crop=False)
    write("\n".join(line.rstrip() for line in captured.get().splitlines()))


def write(text: str) -> None:
    """Prints plain text; a reader that has closed the pipe is no error, and must not decide the exit code."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
