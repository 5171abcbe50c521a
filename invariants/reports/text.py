"""A report for a terminal: a table, then every failure spelled out."""

from collections.abc import Mapping, Sequence
from typing import Literal

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from invariants.failure import Command, Story, stories
from invariants.reports.rows import WHY, conclusion, head, notes, rows, writable
from invariants.verdict import Report, Verdict

COLOURS = {
    Verdict.HOLDS: "green", Verdict.EXPECTED_VIOLATION: "cyan", Verdict.NOT_APPLICABLE: "dim",
    Verdict.VIOLATED: "bold red", Verdict.UNEXPECTEDLY_HOLDS: "bold red", Verdict.VACUOUS: "bold yellow",
    Verdict.ERROR: "bold red",
}  # fmt: skip

# Column -> how it is laid out, and the width of terminal from which on it is shown: no figure is ever cut off.
COLUMNS: dict[str, tuple[Literal["left", "right"], int]] = {
    "invariant": ("left", 0), "verdict": ("left", 0), "residual": ("right", 0), "bound": ("right", 0),
    "margin": ("right", 0), "theorem": ("left", 120), "settings": ("right", 120), "cases": ("right", 120),
    WHY: ("left", 100),
}  # fmt: skip


def table(report: Report, told: Sequence[Story], width: int = 160) -> Table:
    """A row per invariant, with the setting that decided it."""
    shown = [name for name, (_, from_width) in COLUMNS.items() if width >= from_width]
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for name in shown:
        grid.add_column(name, justify=COLUMNS[name][0], no_wrap=name != WHY, overflow="fold")
    for cells in rows(report, told):
        styles = {"verdict": COLOURS[Verdict(cells["verdict"])], WHY: "dim"}
        grid.add_row(*(Text(cells[name], style=styles.get(name, "")) for name in shown))
    return grid


def render(
    report: Report,
    *,
    command: Command | None = None,
    scripts: Mapping[str, str] | None = None,
    width: int = 160,
) -> RenderableType:
    """The whole report for a terminal: the head, the table, and what is red cause by cause.

    command is what the command line was given, for the one that shows a failure again; scripts says which standalone
    script was written for which id. A table for a narrow terminal has fewer columns.
    """
    told = stories(report, command, scripts=scripts)
    headline = f"{writable(report.subject)} ({report.dtype}): {head(report)}"
    parts: list[RenderableType] = [Text(headline, style="bold"), "", table(report, told, width), ""]
    # Not wrapped: the last line is a command, to be copied whole.
    parts += [Text(f"{writable(str(story))}\n", no_wrap=True, overflow="ignore") for story in told]
    parts += [Text(note, style="yellow") for note in notes(report)]
    return Group(*parts, Text(conclusion(report), style="green" if report.ok else "bold red"))


def as_text(
    report: Report,
    *,
    command: Command | None = None,
    scripts: Mapping[str, str] | None = None,
    width: int = 160,
) -> str:
    """The rendered report without colours."""
    console = Console(width=width, no_color=True, highlight=False)
    with console.capture() as captured:
        console.print(render(report, command=command, scripts=scripts, width=width), crop=False)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())
