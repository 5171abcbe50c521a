"""Surveys in files: the name says the format."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from invariants.optimizers.against import Comparison
from invariants.optimizers.report import Survey
from invariants.optimizers.reports.markdown import as_markdown
from invariants.optimizers.reports.plain import as_json
from invariants.optimizers.reports.text import as_text
from invariants.reports.files import asked_for, write_file

Format = Literal["text", "json", "markdown", "picture"]

SUFFIXES: dict[str, Format] = {
    ".txt": "text", ".json": "json", ".md": "markdown", ".svg": "picture", ".png": "picture",
}  # fmt: skip


def format_of(path: Path) -> Format:
    """The format that a file's name asks for, if it can be written: to be asked before a long run.

    Raises ReportPathError.
    """
    return asked_for(path, SUFFIXES)


def rendered(survey: Survey, compared: Sequence[Comparison], format: Format) -> str:
    """The survey in one of the formats that are text."""
    if format == "json":
        return json.dumps(as_json(survey, compared), indent=2, allow_nan=False)
    return as_markdown(survey, compared) if format == "markdown" else as_text(survey, compared)


def write(survey: Survey, compared: Sequence[Comparison], path: Path) -> None:
    """Writes the survey under a temporary name and renames it.

    Raises ReportPathError.
    """
    if format_of(path) == "picture":
        from invariants.optimizers.reports.picture import draw  # brings matplotlib along

        draw(survey, path)
    else:
        write_file(path, rendered(survey, compared, format_of(path)))
