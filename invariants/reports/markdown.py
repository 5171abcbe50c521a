"""A report as Markdown, fit for the summary of a step in continuous integration."""

import html
import re
from collections.abc import Iterable, Mapping

from invariants.failure import Command, Story, stories
from invariants.reports.rows import WHY, conclusion, head, notes, provenance, rows, writable
from invariants.verdict import Report, Verdict

COLUMNS = ("invariant", "verdict", "residual", "bound", "margin", "settings", WHY)
FIGURES = ("residual", "bound", "margin", "settings")
SPECIAL = re.compile(r"([\\`*_\[\]<>|&$~])")


def as_markdown(
    report: Report,
    *,
    command: Command | None = None,
    scripts: Mapping[str, str] | None = None,
) -> str:
    """A headline with the verdict and the counts, a table, and what is red, cause by cause, folded away."""
    colour = "green" if report.ok else "red"
    told = stories(report, command, scripts=scripts)
    origin = ", ".join(f"{name} {value}" for name, value in provenance(report).items())
    blocks = [
        f"## {colour}: {escaped(report.subject)} ({report.dtype}), {head(report)}",
        "\n".join(
            [_line(COLUMNS), _line("--:" if name in FIGURES else "---" for name in COLUMNS), *_rows(report, told)]
        ),
        *map(_folded, told),
        *map(escaped, notes(report)),
        f"**{escaped(conclusion(report))}**",
        escaped(origin),
    ]
    return "\n\n".join(blocks) + "\n"


def escaped(text: str) -> str:
    """A text that means itself, in one line: punctuation that Markdown or a table would read otherwise is escaped."""
    return SPECIAL.sub(r"\\\1", " ".join(writable(text).split()))


def _rows(report: Report, told: Iterable[Story]) -> list[str]:
    lines = []
    for row in rows(report, told):
        cells = {name: escaped(text) for name, text in row.items()}
        cells["invariant"] = f"`{row['invariant']}`"
        cells["verdict"] = row["verdict"] if Verdict(row["verdict"]).green else f"**{row['verdict']}**"
        lines.append(_line(cells[name] for name in COLUMNS))
    return lines


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _folded(story: Story) -> str:
    """One cause in a block that opens on a click; its fence is longer than any run of backticks inside."""
    text = writable(str(story))
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    others = f", and {len(story.explains)} more that it explains" if story.explains else ""
    summary = html.escape(f"{story.result.invariant.id}: {story.result.verdict}{others}")
    return f"<details>\n<summary>{summary}</summary>\n\n{fence}text\n{text}\n{fence}\n\n</details>"
