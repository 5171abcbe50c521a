"""A survey for a terminal: a table by groups, and the details of each where they are few."""

from collections.abc import Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from invariants.optimizers.against import Comparison
from invariants.optimizers.finding import Answer, Finding, shown
from invariants.optimizers.guarantees import GUARANTEES, SPACES
from invariants.optimizers.report import OptimizerReport, Survey
from invariants.optimizers.reports.rows import (
    GROUPS,
    LEGEND,
    PROPERTIES,
    cell,
    figure_lines,
    grouped,
    row,
)
from invariants.reports.rows import writable

FEW = 6  # optimizers that are shown in detail
COLOURS = {"yes": "green", "no": "red", "-": "dim"}


def render(
    survey: Survey, compared: Sequence[Comparison] = (), *, details: bool | None = None, width: int = 160
) -> RenderableType:
    """The whole survey. details: whether every optimizer is spelled out; None does so where they are few."""
    spelled_out = len(survey.reports) <= FEW if details is None else details
    parts: list[RenderableType] = [Text(survey.head, style="bold"), ""]
    if spelled_out:
        parts += [part for report in survey.reports for part in detailed(report)]
    if len(survey.reports) > 1 or not spelled_out:
        parts += [part for key, reports in grouped(survey).items() for part in group(key, reports, width)]
        parts += [*(Text(line, style="dim") for line in LEGEND), ""]
    if compared:
        parts += [Text("Against the specification, in units in the last place", style="bold"), against(compared), ""]
    parts += [Text(writable(note), style="yellow") for note in survey.notes]
    parts += [Text(writable(failure), style="bold red") for failure in survey.failures]
    colour = "green" if survey.ok else "bold red"
    return Group(*parts, Text(conclusion(survey), style=colour))


def conclusion(survey: Survey) -> str:
    """The last line."""
    if not survey.ran:
        return f"red: nothing could be run ({survey.head})"
    if survey.failures:
        return f"red: {len(survey.failures)} of what was demanded is not there ({survey.head})"
    demanded = f", with {', '.join(survey.required)}" if survey.required else ""
    return f"measured{demanded}: {survey.head}"


def group(key: str, reports: Sequence[OptimizerReport], width: int) -> Iterator[RenderableType]:
    """One group as a table."""
    yield Text(f"{GROUPS[key]} ({len(reports)})", style="bold")
    if key == "failed":
        for report in reports:
            yield Text(f"  {writable(report.name)}: {writable(report.why or report.problem or '')}")
        yield ""
        return
    grid = Table(box=None, pad_edge=False, header_style="bold")
    grid.add_column("optimizer", no_wrap=True)
    for title in PROPERTIES.values():
        grid.add_column(title, no_wrap=True)
    for title in ("deviates", "leak", "drift g", "u", "d", "routed"):
        grid.add_column(title, justify="right", no_wrap=True)
    if width >= 120:
        grid.add_column("special", overflow="fold", style="dim")
    for report in reports:
        line = row(report)
        words = [Text(word, style=COLOURS[word]) for word in line.properties.values()]
        cells: list[str | Text] = [
            writable(line.name),
            *words,
            line.deviation,
            line.leak,
            *line.drifts.values(),
            line.routed,
        ]
        grid.add_row(*cells, *([writable(line.special)] if width >= 120 else []))
    yield grid
    yield ""


def detailed(report: OptimizerReport) -> Iterator[RenderableType]:
    """One optimizer, with all that was found."""
    yield Text(writable(f"{report.name} ({report.source}): {report.advice}"), style="bold")
    if not report.ran:
        yield Text(f"  {writable(report.problem or '')}\n")
        return
    for told in filter(None, [report.manner and f"called with {report.manner}", report.why]):
        yield Text(f"  {writable(told)}", style="dim")
    properties = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("property", "found", "note"):
        properties.add_column(title, overflow="fold", no_wrap=title != "note")
    for name, finding in report.probes.items():
        properties.add_row(name, coloured(cell(finding)), Text(writable(finding.note), style="dim"))
    spaces = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("routed", *SPACES):
        spaces.add_column(title, no_wrap=True)
    for name in GUARANTEES:
        spaces.add_row(name, *(coloured(cell(report.spaces[space].guarantees[name])) for space in SPACES))
    for name, line in figure_lines(report).items():
        spaces.add_row(name, *(line[space] for space in SPACES))
    routers = {space: report.spaces[space].router for space in SPACES}
    if any(router is not None for router in routers.values()):
        spaces.add_row("routed step agrees", *(coloured(cell(r)) if r else "-" for r in routers.values()))
    yield properties
    yield ""
    yield spaces
    yield from (Text(line) for line in changed(report))
    refused = {writable(router.note) for router in routers.values() if router and not router.holds}
    yield from (Text(f"routed step: {note}", style="dim") for note in sorted(refused))
    yield ""


def changed(report: OptimizerReport) -> Iterator[str]:
    """What decay, clips and float32 do, a line each."""
    for name, found in report.variants.items():
        if "all" in found:
            yield f"{name}: not measured, {writable(found['all'].note)}"
            continue
        changes = [f"{what} {cell(now)}" for what, (_, now) in report.changed[name].items()]
        yield f"{name}: {'; '.join(changes) or 'changes nothing'} (of {len(found)} looked at)"


def coloured(text: str) -> Text:
    """By its first word."""
    return Text(text, style=COLOURS[text.split(" ")[0]])


def against(compared: Sequence[Comparison]) -> Table:
    """Every implementation in every dtype."""
    implementations = list(dict.fromkeys(each.implementation for each in compared))
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("optimizer", "dtype", *implementations):
        grid.add_column(title, no_wrap=True)
    for twin, dtype in dict.fromkeys((each.twin, each.dtype) for each in compared):
        found = {c.implementation: c.finding for c in compared if (c.twin, c.dtype) == (twin, dtype)}
        grid.add_row(twin, dtype, *(ulps(found[name]) for name in implementations))
    return grid


def ulps(finding: Finding) -> Text:
    """The figure beside what is allowed."""
    if finding.answer is Answer.NOT_MEASURED or finding.figure is None or finding.bound is None:
        return Text("-", style="dim")
    colour = "green" if finding.holds else "red"
    return Text(f"{finding.figure:.3g} of {shown(finding.bound)}", style=colour)


def as_text(
    survey: Survey, compared: Sequence[Comparison] = (), *, details: bool | None = None, width: int = 160
) -> str:
    """The rendered survey without colours."""
    console = Console(width=width, no_color=True, highlight=False)
    with console.capture() as captured:
        console.print(render(survey, compared, details=details, width=width), crop=False)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())
