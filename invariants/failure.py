"""A failure as a story that needs no knowledge of the check: what broke, where, by how much, why, how to see it again.

`failure` tells of one invariant. `stories` tells of a whole report: the violation at the root in full, and folded under
it what it implies; an error that many checks ran into is told once.
"""

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from invariants.divergence import Divergence, first_divergence
from invariants.implications import because, roots
from invariants.trials import StepTrial
from invariants.verdict import Report, Result, SettingResult, Verdict

NO_NUMBER = (
    "something overflowed or was NaN; a subject that computes in a narrower dtype declares it: Subject(dtype=...)"
)


@dataclass(frozen=True, kw_only=True)
class Command:
    """What the command line was given: a failure ends in the command that shows it again."""

    spec: str | None = None
    """The subject, as MODULE:OBJECT; None for this package."""
    tape: str | None = None
    expect: tuple[tuple[str, ...], ...] = ()
    """The words of each --expect: a file, or an id with its reason."""
    require: tuple[str, ...] = ()

    def again(self, report: Report, result: Result) -> str:
        """The command that measures one invariant again, on the same subject and tape, with what is demanded of it."""
        id = result.invariant.id
        words = ["projected-grpo", "verify", *([self.spec] if self.spec else []), "--only", id]
        words += ["--tape", self.tape] if self.tape else []
        words += ["--profile", report.profile] if report.profile != "ci" else []
        words += ["--seed", str(report.seed)] if report.seed else []
        for given in self.expect:
            concerned = (
                any(s.expectation for s in result.settings) if len(given) == 1 else given[0].split(" @ ")[0] == id
            )
            words += ["--expect", *given] if concerned else []
        return shlex.join([*words, *(["--require", id] if id in self.require else [])])


@dataclass(frozen=True, kw_only=True)
class Story:
    """One cause, with everything in the report that it accounts for."""

    result: Result
    """The violation at the root, or the first of the results that say the same."""
    text: str
    explains: Mapping[str, str] = field(default_factory=dict)
    """Ids of the other red results that this one accounts for, each with the reason."""

    def __str__(self) -> str:
        return self.text


def stories(report: Report, command: Command | None = None, *, scripts: Mapping[str, str] | None = None) -> list[Story]:
    """What is red in a report, cause by cause, in the report's order; every red result is in at least one story.

    Args:
        report: whose red results are told.
        command: what the command line was given.
        scripts: id -> where the standalone script that reproduces it was written.
    """
    red = {result.invariant.id: result for result in report.results if not result.verdict.green}
    told, given = [], command or Command()
    for first, explains in _folded(red).items():
        text = failure(
            red[first], given.again(report, red[first]), explains=explains, script=(scripts or {}).get(first)
        )
        told.append(Story(result=red[first], text=text, explains=explains))
    return told


def _folded(red: Mapping[str, Result]) -> dict[str, dict[str, str]]:
    """Id -> what it accounts for, with the reasons; in the order of the report."""
    violated = [id for id, result in red.items() if result.verdict is Verdict.VIOLATED]
    causes = roots(violated)
    folded: dict[str, dict[str, str]] = {}
    first_to_say: dict[tuple[str, str], str] = {}
    for id, result in red.items():
        if id in causes:
            folded[id] = {implied: because(id, implied, violated) or "" for implied in causes[id]}
        elif result.verdict is not Verdict.VIOLATED:
            first = first_to_say.setdefault((result.verdict, result.worst.reason), id)
            folded.setdefault(first, {})
            if first != id:
                folded[first][id] = f"{result.verdict}, for the same reason"
    return folded


def failure(
    result: Result, reproduce: str, *, explains: Mapping[str, str] | None = None, script: str | None = None
) -> str:
    """What broke, where, by how much, why probably, and how to see it again; needs no knowledge of the check.

    The setting that decides is shown in full, the other failing ones in a line each.

    Args:
        result: of one invariant; red.
        reproduce: the command that shows it again.
        explains: other red invariants that this one accounts for, with the reasons.
        script: where the standalone script that reproduces it was written.
    """
    invariant, shown = result.invariant, result.worst
    others = [s for s in result.settings if s is not shown and not s.verdict.green]
    lines = [f"{invariant.id}: {result.verdict}", *_told("statement", f"{invariant.statement} ({invariant.theorem})")]
    lines += _failing_setting(shown) + _told("also under", *map(_in_a_line, others))
    if result.verdict is Verdict.VIOLATED:
        parting = divergence_of(shown)
        lines += _told("diverges", *([parting.text] if parting else []))
        lines += _told("fails when", invariant.fails_when) + _told("likely cause", invariant.likely_cause)
    lines += _told("explains", *(f"{id}: {reason}" for id, reason in (explains or {}).items()))
    return "\n".join([*lines, *_told("script", *([script] if script else [])), *_told("again", reproduce)])


def _failing_setting(setting: SettingResult) -> list[str]:
    lines = _told("setting", setting.setting) + _told("because", *filter(None, [setting.reason]))
    if (measured := setting.measured) is not None and setting.verdict is not Verdict.VACUOUS:
        allowed = f"{measured.residual:.6g}, allowed {measured.bound:.6g} (margin {measured.margin:.3g})"
        lines += _told("where", measured.where) + _told("observed", allowed)
        lines += [] if not math.isnan(measured.residual) else _told("note", NO_NUMBER)
    return lines + _told("smallest", *filter(None, [setting.counterexample]))


def divergence_of(setting: SettingResult) -> Divergence | None:
    """Where the counterexample's loop first parts from the specification; None for what is no loop, or never parts."""
    trial = setting.example.trial if setting.example else None
    if not isinstance(trial, StepTrial):
        return None
    with torch.random.fork_rng(devices=[]):  # telling of a failure must not change the run that it is told of
        try:
            return first_divergence(trial)
        except Exception:  # the check may have run fewer arms than this, and another may raise: the story goes on
            return None


def _in_a_line(setting: SettingResult) -> str:
    said = f"margin {setting.measured.margin:.3g}" if setting.measured and not setting.reason else setting.reason
    return f"{setting.setting} ({setting.verdict}, {said})"


def _told(what: str, *lines: str) -> list[str]:
    """Lines under one heading, which stands before the first."""
    each = [line for text in lines for line in text.splitlines()]
    return [f"  {what if i == 0 else '':13} {line}" for i, line in enumerate(each)]
