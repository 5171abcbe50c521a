"""What all formats say in the same words: the head, a row for every invariant, the notes, the last line."""

import math
import re
from collections.abc import Iterable

from invariants.failure import Story
from invariants.verdict import Report, Result, Verdict

WHY = "why, or what occurred"

# Control characters, which a terminal obeys and XML cannot hold, and lone surrogates, which no encoding has.
UNWRITABLE = re.compile("[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def writable(text: str) -> str:
    """What a subject says, with what no report can hold spelled out."""
    return UNWRITABLE.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def head(report: Report) -> str:
    """One line that says what ran, of what."""
    return f"ran {report.ran} / applicable {report.applicable} / total {report.total}"


def conclusion(report: Report) -> str:
    """Green or red, and over how much."""
    red = sum(not result.verdict.green for result in report.results)
    if report.ok:
        return f"all as expected: {head(report)}"
    return f"red: {red} of {report.total} invariants" if red else "red: nothing was applicable to this subject"


def notes(report: Report) -> list[str]:
    """What a green run does not say: how much of it had nothing to look at, or no bound narrow enough."""
    unread = sum(result.worst.reason.startswith("the subject does not show") for result in report.results)
    unjudged = sum(result.worst.reason.startswith("not judged") for result in report.results)
    said = []
    if unjudged:
        said.append(f"{unjudged} invariants were measured and not judged: no bound in {report.dtype} is narrow enough")
    if unread:
        said.append(f"{unread} checks had nothing to look at; the table says what to show them")
    return said


def rows(report: Report, told: Iterable[Story]) -> list[dict[str, str]]:
    """A row per invariant; what many of them have to say in the same words is said by the first, where it is told."""
    said_by = {id: story.result for story in told for id in story.explains}
    made = []
    for result in report.results:
        first = said_by.get(result.invariant.id)
        same = first is not None and first.worst.reason and first.worst.reason == result.worst.reason
        made.append({**row(result), **({WHY: f"as for {first.invariant.id}"} if first is not None and same else {})})
    return made


def row(result: Result) -> dict[str, str]:
    """One invariant with the setting that decided it: column -> text."""
    measured = result.worst.measured
    return {
        "invariant": result.invariant.id,
        "verdict": str(result.verdict),
        "residual": figure(measured.residual) if measured else "",
        "bound": figure(measured.bound) if measured else "",
        "margin": f"{measured.margin:.2g}" if measured else "",
        "theorem": result.invariant.theorem,
        "settings": settings_judged(result),
        "cases": str(sum(setting.cases for setting in result.settings)),
        WHY: writable(result.worst.reason or occurred(result)),
    }


def figure(x: float) -> str:
    """Three digits; 0 means exact."""
    return "0" if x == 0 else f"{x:.2e}" if math.isfinite(x) else str(x)


def occurred(result: Result) -> str:
    """The events without which the verdict would mean nothing, with their counts."""
    return ", ".join(f"{event} {count}x" for event, count in result.occurred.items())


def settings_judged(result: Result) -> str:
    """How many of the settings the verdict speaks for."""
    judged = sum(setting.verdict is not Verdict.NOT_APPLICABLE for setting in result.settings)
    return f"{judged}/{len(result.settings)}"


def provenance(report: Report) -> dict[str, str]:
    """What is needed to get the report again: name -> value."""
    return {
        "seed": str(report.seed),
        "profile": report.profile,
        **{f"tape {name}": str(value) for name, value in report.tape.items()},
        **report.versions,
    }
