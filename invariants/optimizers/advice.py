"""What follows for whoever wants to route with an optimizer, in one sentence."""

from invariants.optimizers.finding import Answer, Finding
from invariants.optimizers.guarantees import Figures
from invariants.optimizers.report import OptimizerReport

USABLE = "space='displacement'"
DIVERGED = 100.0  # times as far as training without routing moved


def advice(report: OptimizerReport) -> str:
    """One sentence; it rests on what was measured alone."""
    if not report.ran:
        return f"could not be run: {report.why or report.problem}"
    return f"{_first(report)}{_and(report)}"


def _first(report: OptimizerReport) -> str:
    probes, gradient = report.probes, report.spaces["gradient"]
    if _failed(probes["evaluates_once"]):
        return "evaluates the model inside step(), where no split can reach: don't route with it"
    if _failed(probes["only_steps_move"]):
        how = probes["only_steps_move"].note
        return f"{how}, so a point can't be split reliably: {_independent(report)}; another optimizer is safer"
    if gradient.guarantees["keeps_sum"].answer is Answer.NOT_MEASURED:
        return f"two states show nothing here ({gradient.guarantees['keeps_sum'].note}); use {USABLE}"
    if all(gradient.guarantees[name].holds for name in ("keeps_sum", "erase_match")):
        why = ", as it is linear" if probes["additive"].holds else ""
        return (
            f"independent states keep the sum and match erase{why}; but rectified noise still drives the deployed "
            f"vectors ({_times(report)}), so use {USABLE}"
        )
    return f"{_independent(report)}; use {USABLE}"


def _independent(report: OptimizerReport) -> str:
    """What two states, one for each set, do."""
    found, figures = report.spaces["gradient"].guarantees, report.spaces["gradient"].figures
    if figures is None:
        return "independent states show nothing"
    keeps = "keep the sum" if found["keeps_sum"].holds else _astray(figures)
    if found["erase_match"].holds:
        return f"independent states match erase {'and' if found['keeps_sum'].holds else 'but'} {keeps}"
    reason = "as it couples parameters"
    if _failed(report.probes["repeats"]):
        reason = "as no two runs of it are alike"
    elif not _failed(report.probes["separable"]) and _failed(report.probes["draws_nothing"]):
        reason = "as both sets share its random numbers"
    return f"independent states do not match erase, {reason}, and {keeps}"


def _astray(figures: Figures) -> str:
    if not figures.deviation < DIVERGED:
        return "run away in training: what routing feeds them looks like a direction that never ends"
    percent = f"by {100 * figures.deviation:.3g} %"
    return f"over-move in training {percent}" if figures.stretch > 1 else f"leave vanilla's path in training {percent}"


def _times(report: OptimizerReport) -> str:
    return report.spaces["gradient"].guarantees["no_ratchet"].note


def _and(report: OptimizerReport) -> str:
    """What else has to be known."""
    probes, warnings = report.probes, []
    if _failed(probes["moves_all"]):
        warnings.append(f"with these arguments it {probes['moves_all'].note or 'does not move everything'}")
    if _failed(probes["repeats"]):
        warnings.append("two runs of one seed differ")
    elif _failed(probes["draws_nothing"]):
        warnings.append("it draws random numbers, so arms differ unless their generators are alike")
    if _failed(probes["resumes"]):
        warnings.append("a resumed run is another run")
    if _failed(probes["none_inert"]):
        warnings.append("it moves vectors without gradients")
    if "matrices" in report.manner:
        warnings.append("it takes matrices only, and routing vectors are none")
    return f" ({'; '.join(warnings)})" if warnings else ""


def _failed(finding: Finding) -> bool:
    return finding.answer is Answer.VIOLATED
