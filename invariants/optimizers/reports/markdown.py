"""A survey as Markdown: the table by groups, what the columns mean, and what it was measured on."""

from collections.abc import Iterable, Iterator, Sequence

from invariants.optimizers.against import Comparison
from invariants.optimizers.finding import Answer, shown
from invariants.optimizers.guarantees import GUARANTEES, SPACES
from invariants.optimizers.probes import PROBES
from invariants.optimizers.report import OptimizerReport, Survey
from invariants.optimizers.reports.rows import GROUPS, LEGEND, PROPERTIES, WORDS, grouped, row
from invariants.optimizers.reports.text import conclusion
from invariants.reports.markdown import escaped

COLUMNS = (
    "optimizer", *PROPERTIES.values(), "deviates", "leak", "drift g", "drift u", "drift d", "routed", "special",
)  # fmt: skip


def as_markdown(survey: Survey, compared: Sequence[Comparison] = ()) -> str:
    """The whole survey."""
    blocks = [f"**{escaped(survey.head)}**", *(escaped(failure) for failure in survey.failures)]
    for key, reports in grouped(survey).items():
        blocks += [f"### {GROUPS[key]} ({len(reports)})", *_group(key, reports)]
    blocks += ["\n".join(f"- {escaped(line)}" for line in LEGEND)]
    if compared:
        blocks += ["### Against the specification, in units in the last place", _against(compared)]
    blocks += [escaped(note) for note in survey.notes]
    origin = ", ".join(f"{name} {value}" for name, value in survey.versions.items())
    return "\n\n".join([*blocks, f"**{escaped(conclusion(survey))}**", escaped(origin)]) + "\n"


def statements() -> str:
    """Every property and guarantee with what it states, for the guide."""
    lines = [_line(("property", "theorem", "statement")), _line(["---"] * 3)]
    lines += [_line((f"`{probe.name}`", probe.theorem, escaped(probe.statement))) for probe in PROBES.values()]
    return "\n".join(lines)


def guaranteed(survey: Survey) -> str:
    """How many of the optimizers that ran keep each guarantee in each space, and the largest residual of those."""
    lines = [_line(("guarantee", *SPACES)), _line(["---"] + ["--:"] * len(SPACES))]
    ran = [report for report in survey.reports if report.ran]
    for name in GUARANTEES:
        cells = []
        for space in SPACES:
            found = [report.spaces[space].guarantees[name] for report in ran]
            held = [finding.figure or 0.0 for finding in found if finding.holds]
            judged = sum(finding.answer is not Answer.NOT_MEASURED for finding in found)
            cells.append(f"{len(held)} of {judged}" + (f", residual at most {shown(max(held))}" if held else ""))
        lines.append(_line((f"`{name}`", *cells)))
    return "\n".join(lines)


def _group(key: str, reports: Sequence[OptimizerReport]) -> Iterator[str]:
    if key == "failed":
        yield "\n".join(
            f"- {escaped(report.name)}: {escaped(': '.join(filter(None, [report.why, report.problem])))}"
            for report in reports
        )
        return
    lines = [_line(COLUMNS), _line("---" if name in ("optimizer", "special") else "--:" for name in COLUMNS)]
    for report in reports:
        line = row(report)
        lines.append(
            _line([
                escaped(line.name), *line.properties.values(), line.deviation, line.leak,
                *line.drifts.values(), line.routed, escaped(line.special),
            ])
        )  # fmt: skip
    yield "\n".join(lines)


def _against(compared: Sequence[Comparison]) -> str:
    implementations = list(dict.fromkeys(each.implementation for each in compared))
    lines = [
        _line(("optimizer", "dtype", *implementations)), _line(["---", "---", *("--:" for _ in implementations)]),
    ]  # fmt: skip
    for twin, dtype in dict.fromkeys((each.twin, each.dtype) for each in compared):
        found = {c.implementation: c.finding for c in compared if (c.twin, c.dtype) == (twin, dtype)}
        cells = [
            f"{f.figure:.3g} of {shown(f.bound)}{'' if f.holds else ' **exceeded**'}"
            if f.figure is not None and f.bound is not None else WORDS[f.answer]
            for f in (found[name] for name in implementations)
        ]  # fmt: skip
        lines.append(_line((escaped(twin), dtype, *cells)))
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
