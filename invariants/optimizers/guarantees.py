"""What survives routing, space by space: the guarantees, measured on routed runs.

    keeps_sum             deployed + quarantine are where training without routing would be (theorems T9, T12)
    erase_match           the deployed vectors are, bit for bit, what they are under erase (T10, T12)
    span                  the quarantine stays in the span of the basis (T11, T12)
    no_update_leak        no single change of a deployed vector is hack-ward: V(-change) <= 0 (T11, T12)
    no_displacement_leak  what a deployed vector has learned is not hack-ward: V(-(deployed - start)) <= 0 (T12')
    no_ratchet            noise drives no deployed vector along the basis: |V(deployed - start)| is nowhere larger than
                          without routing (T20)

and on the steps after the basis was exchanged, along the new one:

    refreshed_span, refreshed_update, refreshed_displacement

Residuals are relative to the largest value that the vector has on any of the compared paths.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from invariants.bounds import unit_roundoff
from invariants.optimizers.finding import Finding, not_measured
from invariants.optimizers.loop import RoutedPath
from invariants.optimizers.paths import Gap, Path, gap, judged, moves, sizes, trajectory_bound
from invariants.optimizers.sequences import NOISE_AXES, Routed, Values
from reference import Space

Guarantee = Literal[
    "keeps_sum", "erase_match", "span", "no_update_leak", "no_displacement_leak", "no_ratchet",
    "refreshed_span", "refreshed_update", "refreshed_displacement",
]  # fmt: skip
GUARANTEES: tuple[Guarantee, ...] = get_args(Guarantee)
SPACES: tuple[Space, ...] = get_args(Space)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One space in numbers, of the first steps, with the basis that they began with.

    deviation: how far the training model ends from where it would be without routing, relative to how far that moved.
    stretch: how far the training model moves in all, relative to how far it would move without routing.
    leak: the largest hack-ward share of an update of a deployed vector, between 0 and 1.
    learned_leak: the hack-ward share of what the deployed vectors have learned in the end.
    drift: on noise, the mean over axes of V (deployed - start), in units of its root mean square without routing; what
        one-sided routing does to it grows with every step.
    drift_quarantine: the same of the quarantine.
    """

    deviation: float
    stretch: float
    leak: float
    learned_leak: float
    drift: float
    drift_quarantine: float


@dataclass(frozen=True, kw_only=True)
class Runs:
    """The arms that guarantees of one space are about, on the same gradients."""

    on: Routed
    space: Space
    vanilla: RoutedPath
    route: RoutedPath
    erase: RoutedPath | None = None

    @property
    def before(self) -> "Runs":
        """As far as the basis stayed what it was."""
        until = self.on.refreshed_after
        return Runs(
            on=self.on, space=self.space, vanilla=self.vanilla.up_to(until), route=self.route.up_to(until),
            erase=None if self.erase is None else self.erase.up_to(until),
        )  # fmt: skip

    @property
    def dtype(self) -> torch.dtype:
        """Of the vectors."""
        return next(iter(self.on.start.values())).dtype

    @property
    def steps(self) -> int:
        """How many there are."""
        return len(next(iter(self.route.deployed.values()))) - 1

    @property
    def scale(self) -> dict[str, float]:
        """The largest value of each vector on any of the paths, the combined point included."""
        return sizes(self.vanilla.deployed, self.route.deployed, self.route.quarantine, self.route.combined)

    def rounding(self, factor: float) -> float:
        """What `factor` roundings a step may add up to, relative to the largest value: factor * steps * u."""
        return factor * self.steps * unit_roundoff(self.dtype)

    @property
    def sum_bound(self) -> float:
        """At a point, a step rounds the two parts and their writing, 2 u each, and the sum; with two optimizers, the
        whole trajectory."""
        return trajectory_bound(self.steps, self.dtype) if self.space == "gradient" else self.rounding(8)

    @property
    def split_bound(self) -> float:
        """Along the basis: a product of length r, and one of length k, both on what is split, and its writing."""
        k, r = max((V.shape for V in self.on.basis.values()), key=sum)
        return self.rounding(2 * (k + r) + 8)


def guarantees(runs: Runs, *, refreshed: bool = True) -> dict[Guarantee, Finding]:
    """All of one space. A run in which nothing was removed, or nothing moved, shows nothing and is not measured."""
    if (why := vacuous(runs)) is not None:
        return dict.fromkeys(GUARANTEES, not_measured(why))
    measures: dict[Guarantee, Callable[[Runs], Finding]] = {
        "keeps_sum": keeps_sum, "erase_match": erase_match, "span": span, "no_update_leak": no_update_leak,
        "no_displacement_leak": no_displacement_leak, "no_ratchet": no_ratchet,
    }  # fmt: skip
    found = {name: measure(runs.before) for name, measure in measures.items()}
    if refreshed:
        found |= {
            "refreshed_span": refreshed_span(runs), "refreshed_update": refreshed_update(runs),
            "refreshed_displacement": refreshed_displacement(runs),
        }  # fmt: skip
    return found


def vacuous(runs: Runs) -> str | None:
    """Why the runs show nothing, or None. If only routing leaves the finite numbers, that is what they show."""
    if not all(bool(values.isfinite().all()) for values in runs.vanilla.deployed.values()):
        return "training without routing left the finite numbers"
    if not all(bool((values != values[0]).any()) for values in runs.route.quarantine.values()):
        return "the quarantine did not move"
    there, far = sizes(runs.vanilla.deployed), sizes(moves(runs.vanilla.deployed))
    if all(far[name] <= trajectory_bound(runs.steps, runs.dtype) * there[name] for name in there):
        return "training without routing moved no farther than rounding may"
    return None


def keeps_sum(runs: Runs) -> Finding:
    """The combined model is where training without routing would be."""
    bound, scale = runs.sum_bound, runs.scale
    return judged(gap(runs.route.combined, runs.vanilla.deployed, bound, scale), bound)


def erase_match(runs: Runs) -> Finding:
    """The deployed vectors are those of erase, bit for bit."""
    if runs.erase is None:
        return not_measured("erase was not run")
    steps = len(next(iter(runs.erase.deployed.values()))) - 1
    return judged(gap(runs.route.up_to(steps).deployed, runs.erase.deployed, 0.0, runs.scale), 0.0)


def span(runs: Runs) -> Finding:
    """The quarantine has no part off the basis."""
    off = off_basis(runs.route.quarantine, runs.on.basis)
    bound = trajectory_bound(runs.steps, runs.dtype) if runs.space == "gradient" else runs.split_bound
    return judged(gap(off, zeros(off), bound, runs.scale), bound)


def no_update_leak(runs: Runs) -> Finding:
    """No change of a deployed vector is hack-ward."""
    updates = {name: path[1:] - path[:-1] for name, path in runs.route.deployed.items()}
    return leak_finding(updates, runs.on.basis, runs, first=1)


def no_displacement_leak(runs: Runs) -> Finding:
    """What a deployed vector has learned is never hack-ward."""
    return leak_finding(moves(runs.route.deployed), runs.on.basis, runs)


def no_ratchet(runs: Runs) -> Finding:
    """Noise has carried no deployed vector farther along an axis than it would without routing."""
    V, bound = runs.on.basis["noise"], runs.split_bound
    routed, free = ((moves(arm.deployed)["noise"] @ V.T).abs() for arm in (runs.route, runs.vanilla))
    excess = (routed - free).clamp(min=0) / runs.scale["noise"]  # (steps + 1, k)
    path = {"noise": excess}
    found = gap(path, zeros(path), bound, {"noise": 1.0})
    farther = float(routed[-1].mean() / free[-1].mean()) if bool(free[-1].any()) else 0.0
    return judged(found, bound, f"on noise it ends {farther:.1f} times as far along the basis as without routing")


def refreshed_span(runs: Runs) -> Finding:
    """From the first step after a refresh on, the quarantine is in the span of the new basis."""
    off = off_basis(after(runs, runs.route.quarantine), runs.on.refreshed)
    return _late(runs, judged(gap(off, zeros(off), runs.split_bound, runs.scale), runs.split_bound))


def refreshed_update(runs: Runs) -> Finding:
    """From the first step after a refresh on, no change is hack-ward along the new basis."""
    updates = {name: path[1:] - path[:-1] for name, path in runs.route.deployed.items()}
    later = {name: change[runs.on.refreshed_after :] for name, change in updates.items()}
    return _late(runs, leak_finding(later, runs.on.refreshed, runs))


def refreshed_displacement(runs: Runs) -> Finding:
    """From the first step after a refresh on, what was learned is not hack-ward along the new basis."""
    return _late(runs, leak_finding(after(runs, moves(runs.route.deployed)), runs.on.refreshed, runs))


def _late(runs: Runs, finding: Finding) -> Finding:
    """The steps of such a finding are counted from the refresh."""
    if finding.step is None:
        return finding
    values = {**vars(finding), "step": finding.step + runs.on.refreshed_after + 1}
    return Finding(**values)


def after(runs: Runs, path: Path) -> Path:
    """What follows the first step with the new basis."""
    return {name: values[runs.on.refreshed_after + 1 :] for name, values in path.items()}


def leak_finding(motion: Path, basis: Values, runs: Runs, *, first: int = 0) -> Finding:
    """Whether motion (steps, r) is hack-ward beyond rounding; `first` is the step that row 0 belongs to.

    How large a share of a motion that is, is told beside it.
    """
    bound, scale = runs.split_bound, runs.scale
    beyond = {name: torch.relu(-m @ basis[name].T) for name, m in motion.items()}  # (steps, k)
    found = gap(beyond, zeros(beyond), bound, scale)
    if found.step is None:
        return judged(found, bound)
    share = largest_share(motion, basis, {name: bound * scale[name] for name in motion})
    place = Gap(found.figure, found.step + first, found.vector)
    return judged(place, bound, f"up to {100 * share:.3g} % of a motion")


def largest_share(motion: Path, basis: Values, floor: Mapping[str, float]) -> float:
    """The largest hack-ward share of any motion that is longer than the floor; parts below the floor are rounding."""
    largest = 0.0
    for name, m in motion.items():
        hackward = torch.relu(-m @ basis[name].T).norm(dim=1)
        lengths = m.norm(dim=1)
        told = (lengths > floor[name]) & (hackward > floor[name])
        if bool(told.any()):
            largest = max(largest, float((hackward[told] / lengths[told]).max()))
    return largest


def off_basis(path: Path, basis: Values) -> Path:
    """What of each vector is not in the span of its basis."""
    return {name: values - (values @ basis[name].T) @ basis[name] for name, values in path.items()}


def zeros(path: Mapping[str, Tensor]) -> Path:
    """As many zeros."""
    return {name: torch.zeros_like(values) for name, values in path.items()}


def figures(runs: Runs) -> Figures:
    """One space in numbers."""
    runs = runs.before
    vanilla, combined = (torch.cat([path[-1] for path in moves(p).values()]) for p in (
        runs.vanilla.deployed, runs.route.combined,
    ))  # fmt: skip
    floor = {name: runs.split_bound * size for name, size in runs.scale.items()}
    learned = {name: path[-1:] for name, path in moves(runs.route.deployed).items()}
    updates = {name: path[1:] - path[:-1] for name, path in runs.route.deployed.items()}
    V = runs.on.basis["noise"]
    unit = float((V @ moves(runs.vanilla.deployed)["noise"][-1]).norm()) / NOISE_AXES**0.5 or 1.0
    return Figures(
        deviation=float((combined - vanilla).norm() / vanilla.norm()),
        stretch=float(combined.norm() / vanilla.norm()),
        leak=largest_share(updates, runs.on.basis, floor),
        learned_leak=largest_share(learned, runs.on.basis, floor),
        drift=float((V @ moves(runs.route.deployed)["noise"][-1]).mean()) / unit,
        drift_quarantine=float((V @ runs.route.quarantine["noise"][-1]).mean()) / unit,
    )
