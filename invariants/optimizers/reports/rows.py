"""What all formats say in the same words: groups of optimizers, a row for each, and their figures."""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from invariants.optimizers.finding import Answer, Finding, shown
from invariants.optimizers.guarantees import SPACES
from invariants.optimizers.report import OptimizerReport, Survey
from reference import Space

WORDS = {Answer.HOLDS: "yes", Answer.VIOLATED: "no", Answer.NOT_MEASURED: "-"}
GROUPS = {
    "linear": "Independent states keep the sum and match erase",
    "separable": "Independent states match erase, and lose the sum",
    "coupled": "Independent states do not match erase",
    "elsewhere": "Moves or evaluates where no split can reach",
    "failed": "Could not be run",
}
"""In this order; the guarantees of gradient space decide, since at a point every optimizer has all of them."""

PROPERTIES = {
    "additive": "linear", "separable": "apart", "scale_free": "scale", "resumes": "resumes",
    "draws_nothing": "unrandom", "nonfinite": "NaN",
}  # fmt: skip
"""The properties that have a column of their own, with its title."""

LEGEND = (
    "yes / no: linear in gradient and state; a vector moves apart from the others; the scale of the gradients does not "
    "matter; resumes to the bit; draws no random numbers; refuses or skips NaN",
    "deviates: how far routed training with a state for each set leaves the path of training without routing; leak: "
    "largest hack-ward share of an update there",
    "drift: on noise, of the deployed vectors along the basis, in random walks, in gradient, update and displacement "
    "space; routed: spaces (g, u, d) in which the routed step under test does what the specification does, . refused",
)


class Row(NamedTuple):
    """One optimizer in a table."""

    name: str
    properties: dict[str, str]
    deviation: str
    leak: str
    drifts: dict[Space, str]
    routed: str
    special: str


def group_of(report: OptimizerReport) -> str:
    """The key of GROUPS that an optimizer belongs to."""
    if not report.ran:
        return "failed"
    if any(report.probes[name].answer is Answer.VIOLATED for name in ("evaluates_once", "only_steps_move")):
        return "elsewhere"
    guaranteed = report.spaces["gradient"].guarantees
    if not guaranteed["erase_match"].holds:
        return "coupled"
    return "linear" if guaranteed["keeps_sum"].holds else "separable"


def grouped(survey: Survey) -> dict[str, list[OptimizerReport]]:
    """The optimizers by group, those first that deviate least; two of one name by source."""
    groups: dict[str, list[OptimizerReport]] = {key: [] for key in GROUPS}
    for report in survey.reports:
        groups[group_of(report)].append(report)
    for reports in groups.values():
        reports.sort(key=lambda report: (deviation(report), report.name.lower(), report.source))
    return {key: reports for key, reports in groups.items() if reports}


def deviation(report: OptimizerReport) -> float:
    """How far gradient space leaves the path of training without routing; infinite if it runs away or did not run."""
    figures = report.spaces["gradient"].figures if report.ran else None
    if figures is None or math.isnan(figures.deviation):
        return math.inf
    return 0.0 if figures.deviation < ROUNDING else figures.deviation


ROUNDING = 1e-9  # a deviation below is the rounding of a sum that is kept


def full_name(report: OptimizerReport) -> str:
    """With its source where that isn't torch."""
    return report.name if report.source == "torch" else f"{report.name} ({SOURCES.get(report.source, report.source)})"


SOURCES = {"pytorch_optimizer": "po"}


def row(report: OptimizerReport) -> Row:
    """One that ran."""
    figures = {space: report.spaces[space].figures for space in SPACES}
    return Row(
        name=full_name(report),
        properties={title: WORDS[report.probes[name].answer] for name, title in PROPERTIES.items()},
        deviation="runs away" if deviation(report) > 100 else percent(deviation(report)),
        leak="-" if figures["gradient"] is None else percent(figures["gradient"].leak),
        drifts={space: "-" if found is None else drift(found.drift) for space, found in figures.items()},
        routed=routed(report),
        special=special(report),
    )


def percent(share: float) -> str:
    """A share, of 1, in percent; 0 below rounding."""
    if not math.isfinite(share):
        return "inf"
    return "0" if share < ROUNDING else f"{100 * share:.3g} %"


def drift(figure: float) -> str:
    """In units of a random walk."""
    if not math.isfinite(figure):
        return "inf"
    return f"{figure:+.1f}" if abs(figure) < 1e4 else f"{figure:+.0e}"


def routed(report: OptimizerReport) -> str:
    """In which spaces somebody's routed step does what the specification does."""
    given = {space: spaces.router for space, spaces in report.spaces.items()}
    if all(finding is None for finding in given.values()):
        return ""
    letters = {
        space[0]: finding.answer for space, finding in given.items() if finding is not None
    }  # gradient, update, displacement
    return "".join(
        letter if answer is Answer.HOLDS else "!" if answer is Answer.VIOLATED else "."
        for letter, answer in letters.items()
    )


def special(report: OptimizerReport) -> str:
    """How it had to be called, and what is unusual about it."""
    told = [report.manner] if report.manner else []
    for name, what in UNUSUAL.items():
        if report.probes[name].answer is Answer.VIOLATED:
            told.append(what or report.probes[name].note)
    for name, changes in report.changed.items():
        if "decay" in name:
            told += [f"{name}: {what}" for what in _under_decay(changes)]
    return "; ".join(told)


def _under_decay(changes: Mapping[str, tuple[Finding, Finding]]) -> Iterator[str]:
    """What decay does to the guarantees of gradient space, in few words."""
    for what, names in IN_SHORT.items():
        now = [changes[f"{name}@gradient"][1] for name in names if f"{name}@gradient" in changes]
        if now:
            yield f"no {what}" if now[0].holds == (what == "leak") else what


IN_SHORT = {
    "sum kept": ("keeps_sum",), "erase match": ("erase_match",), "span": ("span",),
    "leak": ("no_update_leak", "no_displacement_leak"),
}  # fmt: skip
UNUSUAL = {
    "only_steps_move": "", "evaluates_once": "", "none_inert": "moves vectors without gradients",
    "order_free": "order matters", "groups_free": "groups matter", "paths_agree": "implementations differ",
    "takes_generators": "takes no generator", "repeats": "not reproducible", "moves_all": "",
}  # fmt: skip
"""Property -> what is said where it is violated; the finding's own note where that is empty."""


def cell(finding: Finding) -> str:
    """A finding in a table of details."""
    if finding.answer is Answer.NOT_MEASURED:
        return "-"
    figure = "" if finding.figure is None else f" {shown(finding.figure)}"
    place = "" if finding.step is None else f" (step {finding.step}, {finding.vector})"
    return f"{WORDS[finding.answer]}{figure}{place}"


def figure_lines(report: OptimizerReport) -> Mapping[str, dict[Space, str]]:
    """The figures of the spaces, in words."""
    found = {space: report.spaces[space].figures for space in SPACES}
    lines: dict[str, dict[Space, str]] = {
        "deviation from vanilla": {}, "largest leak of an update": {}, "leak of what was learned": {},
        "drift on noise": {}, "drift of the quarantine": {},
    }  # fmt: skip
    for space, figures in found.items():
        for line, text in zip(
            lines.values(),
            ("-",) * 5 if figures is None else (
                percent(figures.deviation), percent(figures.leak), percent(figures.learned_leak),
                drift(figures.drift), drift(figures.drift_quarantine),
            ), strict=True,
        ):  # fmt: skip
            line[space] = text
    return lines
