"""Surveys for people (a terminal table, Markdown, a picture) and for programs (JSON with a published schema)."""

from invariants.optimizers.reports.files import SUFFIXES, Format, format_of, rendered, write
from invariants.optimizers.reports.markdown import as_markdown
from invariants.optimizers.reports.plain import as_json, schema_text
from invariants.optimizers.reports.text import as_text, render

__all__ = [
    "SUFFIXES",
    "Format",
    "as_json",
    "as_markdown",
    "as_text",
    "format_of",
    "render",
    "rendered",
    "schema_text",
    "write",
]
