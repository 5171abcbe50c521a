"""A report for a terminal, and for a Markdown file."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table

from projected_grpo.bench.report import Change, Report, Row

COLUMNS = ("job", "at", "median", "quartiles", "beside its baseline", "beside the bound")


def terminal(report: Report, found: Sequence[Change] = ()) -> RenderableType:
    """A table for each group, then what was left out, then what has changed."""
    parts: list[RenderableType] = [heading(report)]
    for group in dict.fromkeys(row.group for row in report.rows):
        table = Table(title=group, title_justify="left", box=None, pad_edge=False)
        for name in COLUMNS:
            table.add_column(name, justify="left" if name in COLUMNS[:2] else "right")
        for row in report.rows:
            if row.group == group:
                table.add_row(*cells(row))
        parts += ["", table]
    parts += ["", *report.left_out] if report.left_out else []
    parts += ["", *(changed(change) for change in found)] if found else []
    return Group(*parts)


def markdown(report: Report) -> str:
    """The same tables."""
    lines = [heading(report)]
    for group in dict.fromkeys(row.group for row in report.rows):
        lines += ["", f"### {group}", "", f"| {' | '.join(COLUMNS)} |", "|---|---|--:|--:|--:|--:|"]
        lines += [f"| {' | '.join(cells(row))} |" for row in report.rows if row.group == group]
    lines += ["", *(f"- {sentence}" for sentence in report.left_out)] if report.left_out else []
    return "\n".join(lines)


def heading(report: Report) -> str:
    """What was measured on what."""
    machine = report.machine
    busy = "unknown" if machine.load is None else f"{machine.load:.2f} a core"
    return (
        f"{report.shape}: {report.settings['modules']} modules, {report.settings['entries']:,} entries in each set of "
        f"vectors. {machine.processor} ({machine.device}), {machine.threads} thread(s) of {machine.cores} cores, load "
        f"{busy}; {machine.bandwidth / 1e9:.1f} GB/s, {machine.flops / 1e9:,.0f} GFLOP/s; torch {machine.torch}, "
        f"Python {machine.python}; compiled loops: {machine.loops or 'none'}."
    )


def cells(row: Row) -> list[str]:
    """One row, in the order of COLUMNS; numbers that are no times stand where the times would."""
    _, name, where = row.key
    if row.time is None:
        return [name, where, "; ".join(f"{what} {quantity(value)}" for what, value in row.numbers.items()), "", "", ""]
    return [
        name,
        where,
        duration(row.time.median),
        f"{duration(row.time.low)} to {duration(row.time.high)}",
        "" if row.ratio is None else f"{row.ratio:.2f}" if row.ratio >= 0.1 else f"{row.ratio:.1g}",
        "" if row.by_bound is None else f"{row.by_bound:.1f}",
    ]


def changed(change: Change) -> str:
    """A sentence about a row in two reports."""
    what = "beside its baseline" if change.by_ratio else "by the clock, on whatever machine it was then"
    group, name, where = change.row.key
    return f"{group}, {name} ({where}): {change.factor:.2f} times what it was {what}."


def duration(seconds: float) -> str:
    """Three digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if float(f"{seconds / size:.3g}") >= 1:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def quantity(value: float) -> str:
    """A count or a number of bytes."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"
