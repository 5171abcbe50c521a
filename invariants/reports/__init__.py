"""Reports for people (a terminal table, Markdown) and for programs (JSON with a published schema, JUnit XML)."""

from invariants.reports.files import SUFFIXES, Format, format_of, rendered, write_file
from invariants.reports.junit import as_junit
from invariants.reports.markdown import as_markdown
from invariants.reports.plain import as_json, schema_text
from invariants.reports.rows import head
from invariants.reports.text import as_text, render

__all__ = [
    "SUFFIXES",
    "Format",
    "as_json",
    "as_junit",
    "as_markdown",
    "as_text",
    "format_of",
    "head",
    "render",
    "rendered",
    "schema_text",
    "write_file",
]
