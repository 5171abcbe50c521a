"""Plots in files: the name says the format, and no half picture is ever seen."""

from pathlib import Path
from typing import Literal

from projected_grpo.results.plots.errors import PlotPathError
from projected_grpo.whole_files import whole

Format = Literal["svg", "png", "json"]

SUFFIXES: dict[str, Format] = {".svg": "svg", ".png": "png", ".json": "json"}


def format_of(path: Path) -> Format:
    """The format that a file's name asks for, if a file can be written there. Raises PlotPathError."""
    if path.suffix not in SUFFIXES:
        raise PlotPathError(f"{path} does not say its format; a plot's name ends in {', '.join(SUFFIXES)}.")
    if not path.parent.is_dir():
        raise PlotPathError(f"{path} can't be written: there is no directory {path.parent}; make it first.")
    if path.is_dir():
        raise PlotPathError(f"{path} can't be written: it is a directory.")
    return SUFFIXES[path.suffix]


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a whole file under a temporary name and renames it. Raises PlotPathError."""
    try:
        with whole(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise PlotPathError(f"{path} can't be written: {error.strerror}.") from error
