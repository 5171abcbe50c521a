"""What is looked at of an optimizer: every probe of it by itself, and every guarantee of routing with it.

Guarantees are looked at in gradient space, where each of the two sets has a state and it is up to the optimizer what
survives. Those that no optimizer has there are looked at in displacement space, where it is up to the routed step.
"""

import math
from collections.abc import Container, Mapping

from invariants.museum.fault import Cell
from invariants.optimizers import GUARANTEES, PROBES, Answer, Arm, Candidate, Finding
from invariants.optimizers.foreign import raised
from invariants.optimizers.guarantees import Guarantee, Runs, guarantees
from invariants.optimizers.loop import PointLoop, watched
from invariants.optimizers.paths import seeded
from invariants.optimizers.probes import Laboratory, measured
from invariants.optimizers.routing import Arms
from invariants.optimizers.runs import SEED
from invariants.optimizers.sequences import drawn, routed
from invariants.verdict import Verdict
from reference import Space

NOWHERE: Mapping[Guarantee, str] = {
    "no_ratchet": "relu of noise has a positive mean, which adds up under whatever moves along the gradient",
    "refreshed_span": "what was routed along the last basis stays in the quarantine",
    "refreshed_displacement": "what was learned along the new basis before the refresh stays where it is",
}
"""Guarantees that no optimizer gives in gradient space, and why."""

VERDICTS = {
    Answer.HOLDS: Verdict.HOLDS, Answer.VIOLATED: Verdict.VIOLATED, Answer.NOT_MEASURED: Verdict.NOT_APPLICABLE,
}  # fmt: skip


def space_of(guarantee: Guarantee) -> Space:
    """The space in which a guarantee can be given and broken."""
    return "displacement" if guarantee in NOWHERE else "gradient"


_BY_SPACE = sorted(GUARANTEES, key=lambda name: name in NOWHERE)
GUARANTEED = {f"conformance.{name}@{space_of(name)}": name for name in _BY_SPACE}
PROPERTIES = (*(f"conformance.{name}" for name in PROBES), *GUARANTEED)
"""The ids of all, in the order in which they are shown."""


def cells(candidate: Candidate, loop: type[PointLoop], seed: int, *, but: Container[str] = ()) -> dict[str, Cell]:
    """What every property says of an optimizer, and of a routed step around it that is taken in displacement space;
    without those whose ids are in `but`."""
    laboratory = Laboratory(candidate, drawn(seed))
    probed = {f"conformance.{name}": name for name in PROBES}
    found = {id: cell(measured(name, laboratory)) for id, name in probed.items() if id not in but}
    return found | {id: c for id, c in _guaranteed(candidate, loop, seed).items() if id not in but}


def _guaranteed(candidate: Candidate, loop: type[PointLoop], seed: int) -> dict[str, Cell]:
    arms = Arms(candidate, routed(seed))
    try:
        spaces = {"gradient": guarantees(arms.runs("gradient")), "displacement": guarantees(at_a_point(arms, loop))}
    except Exception as error:  # whatever a broken optimizer raises
        return dict.fromkeys(GUARANTEED, Cell(Verdict.ERROR, None, raised(error)))
    return {id: cell(spaces[space_of(name)][name]) for id, name in GUARANTEED.items()}


def at_a_point(arms: Arms, loop: type[PointLoop]) -> Runs:
    """Displacement space, with this routed step in the place of the specification's."""
    on, arm = arms.on, Arm(intervention="route", space="displacement")
    with seeded(SEED):
        route = watched(loop(arms.candidate, arm, on.start, on.basis), on)
    return Runs(on=on, space="displacement", vanilla=arms.path(Arm(intervention="none")), route=route)


def cell(finding: Finding) -> Cell:
    """A finding as the matrix has it."""
    reason = ", ".join(filter(None, [finding.where, finding.note]))
    return Cell(VERDICTS[finding.answer], margin(finding), reason)


def margin(finding: Finding) -> float | None:
    """How much of the bound was used; a bound of 0 asks for equal bits."""
    if finding.figure is None or finding.bound is None:
        return None
    if finding.bound == 0:
        return math.inf if finding.figure else 0.0
    return finding.figure / finding.bound
