"""A report for people (a terminal table, failures spelled out) and for programs (JSON with a versioned schema)."""

import math
import shlex
from typing import Any, Literal

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from invariants.measurement import Measurement
from invariants.verdict import Report, Result, SettingResult, Verdict

SCHEMA = "projected-grpo/report"
SCHEMA_VERSION = 1

COLOURS = {
    Verdict.HOLDS: "green", Verdict.EXPECTED_VIOLATION: "cyan", Verdict.NOT_APPLICABLE: "dim",
    Verdict.VIOLATED: "bold red", Verdict.UNEXPECTEDLY_HOLDS: "bold red", Verdict.VACUOUS: "bold yellow",
    Verdict.ERROR: "bold red",
}  # fmt: skip


def head(report: Report) -> str:
    """One line that says what ran, of what."""
    return f"ran {report.ran} / applicable {report.applicable} / total {report.total}"


def figure(x: float) -> str:
    """Three digits; 0 means exact."""
    return "0" if x == 0 else f"{x:.2e}" if math.isfinite(x) else str(x)


# Column -> how it is laid out, and the width of terminal from which on it is shown: no figure is ever cut off.
COLUMNS: dict[str, tuple[Literal["left", "right"], int]] = {
    "invariant": ("left", 0), "verdict": ("left", 0), "residual": ("right", 0), "bound": ("right", 0),
    "margin": ("right", 0), "theorem": ("left", 120), "settings": ("right", 120), "cases": ("right", 120),
    "why, or what occurred": ("left", 100),
}  # fmt: skip


def table(report: Report, width: int = 160) -> Table:
    """A row per invariant, with the setting that decided it."""
    shown = [name for name, (_, from_width) in COLUMNS.items() if width >= from_width]
    rows = Table(box=None, pad_edge=False, header_style="bold")
    for name in shown:
        last = name == "why, or what occurred"
        rows.add_column(name, justify=COLUMNS[name][0], no_wrap=not last, overflow="fold")
    for result in report.results:
        cells = _cells(result)
        rows.add_row(*(cells[name] for name in shown))
    return rows


def _cells(result: Result) -> dict[str, str | Text]:
    measured = result.worst.measured
    return {
        "invariant": result.invariant.id,
        "theorem": result.invariant.theorem,
        "verdict": Text(result.verdict, style=COLOURS[result.verdict]),
        "residual": figure(measured.residual) if measured else "",
        "bound": figure(measured.bound) if measured else "",
        "margin": f"{measured.margin:.2g}" if measured else "",
        "settings": _settings_judged(result),
        "cases": str(sum(s.cases for s in result.settings)),
        "why, or what occurred": Text(result.worst.reason or _occurred(result), style="dim"),
    }


def _occurred(result: Result) -> str:
    """The events without which the verdict would mean nothing, with their counts."""
    return ", ".join(f"{event} {count}x" for event, count in result.occurred.items())


def _settings_judged(result: Result) -> str:
    """How many of the settings the verdict speaks for."""
    judged = sum(s.verdict is not Verdict.NOT_APPLICABLE for s in result.settings)
    return f"{judged}/{len(result.settings)}"


def failure(result: Result, reproduce: str) -> str:
    """What broke, where, by how much, why probably, and how to see it again; needs no knowledge of the check."""
    invariant = result.invariant
    lines = [f"{invariant.id}: {result.verdict}", f"  statement     {invariant.statement} ({invariant.theorem})"]
    for setting in result.settings:
        if not setting.verdict.green:
            lines += _failing_setting(setting)
    if result.verdict is Verdict.VIOLATED:
        lines += [f"  fails when    {invariant.fails_when}", f"  likely cause  {invariant.likely_cause}"]
    return "\n".join([*lines, f"  again         {reproduce}"])


def _failing_setting(setting: SettingResult) -> list[str]:
    lines = [f"  setting       {setting.setting}"]
    if setting.reason:
        lines.append(f"  because       {setting.reason}")
    if setting.measured is not None and setting.verdict is not Verdict.VACUOUS:
        lines += _observed(setting.measured)
    if setting.counterexample:
        lines.append(f"  smallest      {setting.counterexample}")
    return lines


def _observed(measured: Measurement) -> list[str]:
    return [
        f"  where         {measured.where}",
        f"  observed      {measured.residual:.6g}, allowed {measured.bound:.6g} (margin {measured.margin:.3g})",
    ]


def reproduce_command(report: Report, result: Result, spec: str | None = None, tape: str | None = None) -> str:
    """The command that measures one invariant again, on the same subject and tape."""
    parts = ["projected-grpo verify", *([spec] if spec else []), f"--only {result.invariant.id}"]
    parts += [f"--tape {shlex.quote(tape)}"] if tape else []
    return " ".join([*parts, *([f"--seed {report.seed}"] if report.seed else [])])


def render(report: Report, *, spec: str | None = None, tape: str | None = None, width: int = 160) -> RenderableType:
    """The whole report for a terminal: the head, the table, and every red result spelled out.

    spec and tape are what the command line was given, for the command that shows a failure again; a table for a narrow
    terminal has fewer columns.
    """
    red = [result for result in report.results if not result.verdict.green]
    unread = sum(result.worst.reason.startswith("the subject does not show") for result in report.results)
    parts: list[RenderableType] = [
        Text(f"{report.subject} ({report.dtype}): {head(report)}", style="bold"), "", table(report, width), "",
    ]  # fmt: skip
    for result in red:
        # Not wrapped: the last line is a command, to be copied whole.
        story = failure(result, reproduce_command(report, result, spec, tape))
        parts.append(Text(f"{story}\n", no_wrap=True, overflow="ignore"))
    unjudged = sum(result.worst.reason.startswith("not judged") for result in report.results)
    if unjudged:
        why = f"{unjudged} invariants were measured and not judged: no bound in {report.dtype} is narrow enough"
        parts.append(Text(why, style="yellow"))
    if unread:
        parts.append(Text(f"{unread} checks had nothing to look at; the table says what to show them", style="yellow"))
    if report.ok:
        parts.append(Text(f"all as expected: {head(report)}", style="green"))
    elif not red:
        parts.append(Text("red: nothing was applicable to this subject", style="bold red"))
    else:
        parts.append(Text(f"red: {len(red)} of {report.total} invariants", style="bold red"))
    return Group(*parts)


def as_text(report: Report, *, spec: str | None = None, width: int = 160) -> str:
    """The rendered report without colours."""
    console = Console(width=width, no_color=True, highlight=False)
    with console.capture() as captured:
        console.print(render(report, spec=spec, width=width), crop=False)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain data. Within one schema version keys are only added; numbers that aren't finite are null."""
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "subject": report.subject,
        "dtype": report.dtype,
        "seed": report.seed,
        "tape": dict(report.tape),
        "ok": report.ok,
        "ran": report.ran,
        "applicable": report.applicable,
        "total": report.total,
        "results": [
            {
                "id": result.invariant.id,
                "theorem": result.invariant.theorem,
                "statement": result.invariant.statement,
                "verdict": str(result.verdict),
                "occurred": dict(result.occurred),
                **_numbers(result.worst.measured),
                "settings": [
                    {
                        "setting": s.setting, "verdict": str(s.verdict), "reason": s.reason, "cases": s.cases,
                        "counterexample": s.counterexample, **_numbers(s.measured),
                    }
                    for s in result.settings
                ],
            }
            for result in report.results
        ],
    }  # fmt: skip


def _numbers(measured: Measurement | None) -> dict[str, float | str | None]:
    if measured is None:
        return {"residual": None, "bound": None, "margin": None, "where": None}
    numbers = {"residual": measured.residual, "bound": measured.bound, "margin": measured.margin}
    finite = {name: x if math.isfinite(x) else None for name, x in numbers.items()}
    return {**finite, "where": measured.where}
