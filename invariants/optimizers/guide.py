"""The page docs/optimizers.md: how to read a survey (guide.md), and a survey of everything."""

from collections.abc import Sequence
from importlib.resources import files

from invariants.optimizers.against import Comparison
from invariants.optimizers.report import Survey
from invariants.optimizers.reports.markdown import as_markdown, guaranteed, statements


def guide(survey: Survey, compared: Sequence[Comparison], picture: str) -> str:
    """The whole page; `picture` is where the map is shown as an image."""
    page = (files("invariants.optimizers") / "guide.md").read_text(encoding="utf-8")
    for name, text in {
        "picture": picture, "guarantees": guaranteed(survey), "survey": as_markdown(survey, compared).rstrip(),
        "statements": statements(),
    }.items():  # fmt: skip
        page = page.replace(f"[[{name}]]", text)
    return page
