"""Reports in files: the name says the format, and no half report is ever seen."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeVar

from invariants.errors import ReportPathError
from invariants.failure import Command
from invariants.reports.junit import as_junit
from invariants.reports.markdown import as_markdown
from invariants.reports.plain import as_json
from invariants.reports.text import as_text
from invariants.verdict import Report

Format = Literal["text", "json", "junit", "markdown"]

FormatT = TypeVar("FormatT")

SUFFIXES: dict[str, Format] = {".txt": "text", ".json": "json", ".xml": "junit", ".md": "markdown"}


def rendered(
    report: Report,
    format: Format,
    *,
    command: Command | None = None,
    scripts: Mapping[str, str] | None = None,
) -> str:
    """The report in one of the formats; command and scripts are those of `render`."""
    if format == "json":
        return json.dumps(as_json(report), indent=2, allow_nan=False)
    write = {"text": as_text, "junit": as_junit, "markdown": as_markdown}[format]
    return write(report, command=command, scripts=scripts)


def format_of(path: Path) -> Format:
    """The format that a file's name asks for, if a report can be written there: to be asked before a long run.

    Raises ReportPathError.
    """
    return asked_for(path, SUFFIXES)


def asked_for(path: Path, suffixes: Mapping[str, FormatT]) -> FormatT:
    """Which of these formats the name asks for, if a file can be written there.

    Raises ReportPathError.
    """
    if path.suffix not in suffixes:
        known = ", ".join(f"{suffix} ({format})" for suffix, format in suffixes.items())
        raise ReportPathError(f"{path} does not say its format; a report's name ends in one of {known}.")
    check_place(path)
    return suffixes[path.suffix]


def check_place(path: Path) -> None:
    """Raises ReportPathError for a place where no file can be written."""
    if not path.parent.is_dir():
        raise ReportPathError(f"{path} can't be written: there is no directory {path.parent}; make it first.")
    if path.is_dir():
        raise ReportPathError(f"{path} can't be written: it is a directory.")
    if not os.access(path.parent, os.W_OK):
        raise ReportPathError(f"{path} can't be written: the directory {path.parent} does not let you.")


def write_file(path: Path, text: str) -> None:
    """Writes a text under a temporary name and renames it. Raises ReportPathError."""
    write_bytes(path, (text.rstrip("\n") + "\n").encode("utf-8", errors="backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a whole file under a temporary name and renames it. Raises ReportPathError."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        raise ReportPathError(f"{path} can't be written: {error.strerror}.") from error
    finally:
        with suppress(OSError):  # where nothing could be written, there may be nothing to remove
            partial.unlink(missing_ok=True)
