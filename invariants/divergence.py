"""The first divergence: where a training loop and the specification, replayed side by side on one case, part for good.

    clip       what was fed is the specification's up to a common factor, or equals it as soon as there is no limit
    split      what was fed differs otherwise; outside gradient space: the parts differ, and their sum does not
    step       fed alike, and the very first update is another
    moments    fed alike, the first update alike, and a later one is another
    ablation   the deployed vector agrees to the end, but the quarantine is not what deployment should delete

A loop that doesn't show the gradients that it feeds leaves some of these open; all that remain are named.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor

from invariants.bounds import trajectory_error
from invariants.families.agreement import fed_error, sensitivity
from invariants.hypotheses import can_match_erase, has_a_reference
from invariants.trajectory import Gradients, Path
from invariants.trials import StepTrial
from reference import SGD, Intervention, Routing, gradient_parts
from reference.routed_step import Parts, means_after

Stage = Literal["clip", "split", "step", "moments", "ablation"]


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """The first step at which a loop is not the specification's, and what it did otherwise."""

    step: int
    module: str
    intervention: Intervention
    stages: tuple[Stage, ...]
    """Where it happened; several if what the loop shows does not tell them apart."""
    what: str
    residual: float
    allowed: float

    @property
    def text(self) -> str:
        """One line."""
        stage = " or ".join(self.stages)
        unclear = " (the loop does not show what it feeds, so they look alike)" if len(self.stages) > 1 else ""
        off = f"differs by {self.residual:.3g}, allowed {self.allowed:.2g}" if self.residual else "is zeros, not None"
        where = f"step {self.step}, module {self.module!r} under {self.intervention}"
        return f"{where}, stage {stage}{unclear}: {self.what} {off}"


@dataclass(frozen=True, kw_only=True)
class _Parting:
    """One vector that is not within its bound of what it should be."""

    module: str
    kind: Literal["fed to deployed", "fed to quarantine", "deployed", "quarantine"]
    residual: float
    allowed: float


def first_divergence(trial: StepTrial) -> Divergence | None:
    """The first step, arm and module at which a loop parts from the specification beyond rounding; None if it doesn't.

    Without a reference optimizer the gradients that are fed are compared with the specification's, the quarantine of
    none and erase with zero, and the deployed vector of route with that of erase.
    """
    arms = [_Arm(trial, intervention) for intervention in trial.setting.interventions]
    for step in range(trial.case.steps):
        for arm in arms:
            if partings := arm.fed_partings(step):
                return _told(arm, step, _stage_of_fed(arm, step), partings)
            if partings := arm.partings(step):
                return _told(arm, step, _stages_of_step(arm, step, partings), partings)
    return None


def _told(arm: "_Arm", step: int, stages: tuple[Stage, ...], partings: list[_Parting]) -> Divergence:
    worst = max(partings, key=lambda p: p.residual / p.allowed if p.allowed else math.inf)
    return Divergence(
        step=step, module=worst.module, intervention=arm.intervention, stages=stages,
        what=arm.called(worst.kind), residual=worst.residual, allowed=worst.allowed,
    )  # fmt: skip


def _stage_of_fed(arm: "_Arm", step: int) -> tuple[Stage, ...]:
    if arm.feeds_too_much(step):
        return ("split",)
    if arm.free is not None and not arm.free.fed_partings(step):
        return ("clip",)
    # An arm that splits may rescale what it keeps; only where nothing is split a common factor is the clip's doing.
    alone = arm.intervention == "none" or "none" not in arm.trial.setting.interventions
    return ("clip",) if alone and arm.fed_a_common_factor(step) else ("split",)


def _stages_of_step(arm: "_Arm", step: int, partings: list[_Parting]) -> tuple[Stage, ...]:
    if arm.free is not None and not arm.shows_fed and not any(arm.free.partings(t) for t in range(step + 1)):
        return ("clip",)
    later: Stage = "moments" if step else "step"
    splits = arm.intervention != "none"
    if all(p.kind == "quarantine" for p in partings) and not arm.deployed_parts:
        return ("ablation",) if arm.shows_fed or not arm.feeds_both else ("split", "ablation")
    if splits and arm.trial.setting.space != "gradient":
        if arm.intervention == "route":
            return ("split",) if arm.sum_agrees(step) else (later,)
        vanilla = _Arm(arm.trial, "none") if "none" in arm.trial.setting.interventions else None
        follows = vanilla is not None and not any(vanilla.partings(t) for t in range(step + 1))
        return ("split",) if follows else ("split", later)
    return (later,) if arm.shows_fed or not splits else ("split", later)


class _Arm:
    """One intervention: the loop beside the specification, with or without a limit on the norm."""

    def __init__(self, trial: StepTrial, intervention: Intervention, *, limited: bool = True) -> None:
        # The trial as the specification sees it; the loop itself is asked for no limit by None.
        case = trial.case if limited else replace(trial.case, max_norm=math.inf)
        self.trial, self.intervention, self.limited = replace(trial, case=case), intervention, limited
        self.own = trial.run(intervention, clipped=limited)
        self.shows_fed = self.own.fed is not None
        self.knows_optimizer = has_a_reference(trial.setting) is None
        self.feeds_both = intervention == "route" and trial.setting.space == "gradient"
        self._asked = trial

    @cached_property
    def free(self) -> "_Arm | None":
        """The same without a limit; None where there is none to leave out."""
        limit = self._asked.max_norm
        return _Arm(self._asked, self.intervention, limited=False) if self.limited and limit is not None else None

    def called(self, kind: str) -> str:
        """How a reader knows it."""
        if self.feeds_both or self.intervention == "erase":
            return {"fed to deployed": "fed kept", "fed to quarantine": "fed removed"}.get(kind, kind)
        return {"fed to deployed": "fed gradient", "fed to quarantine": "gradient fed to the quarantine"}.get(
            kind, kind
        )

    @cached_property
    def fed_errors(self) -> dict[str, list[Tensor]]:
        """module -> after each step how far what is fed may be off, (r,)."""
        return {name: list(fed_error(self._asked, name)) for name in self.trial.start}

    @cached_property
    def exact_parts(self) -> list[Parts]:
        """What the specification feeds at each step."""
        setting = self.trial.setting
        split = setting.space == "gradient"
        routing = Routing(
            optimizer=setting.reference or SGD(lr=0.0), intervention=self.intervention if split else "none",
            clip=setting.clip or "before", max_norm=self.trial.max_norm, rule=setting.rule,
        )  # fmt: skip
        means, fed = dict[str, Tensor](), list[Parts]()
        for g in self.trial.gradients:
            fed.append(gradient_parts(routing, g, self.trial.basis, means))
            means = means_after(routing.rule, means, fed[-1].coefficients)
        return fed

    def fed_pairs(self, step: int) -> Iterator[tuple[str, bool, Tensor | None, Tensor | None]]:
        """(module, whether it is the quarantine's, fed by the loop, fed by the specification)."""
        assert self.own.fed is not None, "only asked of loops that show it"
        own: tuple[Gradients, Gradients] = self.own.fed[step]
        for name, parts in self.exact_parts[step].items():
            for i in range(2):
                yield name, bool(i), own[i].get(name), parts[i]

    def fed_partings(self, step: int) -> list[_Parting]:
        """Where the gradients that were fed are not the specification's; nothing if they are not shown."""
        found: list[_Parting] = []
        for name, quarantine, mine, theirs in self.fed_pairs(step) if self.shows_fed else ():
            kind: Literal["fed to quarantine", "fed to deployed"] = (
                "fed to quarantine" if quarantine else "fed to deployed"
            )
            if mine is None and theirs is None:
                continue
            if theirs is None:
                assert mine is not None
                found.append(_Parting(module=name, kind=kind, residual=float(mine.abs().max()), allowed=0.0))
            else:
                mine = torch.zeros_like(theirs) if mine is None else mine
                found += _parted(name, kind, mine, theirs, self.fed_errors[name][step])
        return found

    def feeds_too_much(self, step: int) -> bool:
        """Whether a vector is fed anything, be it zeros, that should have no gradient."""
        return any(theirs is None and mine is not None for _, _, mine, theirs in self.fed_pairs(step))

    def fed_a_common_factor(self, step: int) -> bool:
        """Whether one positive number makes everything that was fed the specification's."""
        if not self.shows_fed:
            return False
        pairs = [
            (torch.zeros_like(theirs) if mine is None else mine, theirs, self.fed_errors[name][step])
            for name, _, mine, theirs in self.fed_pairs(step)
            if theirs is not None
        ]
        along = sum(float(mine @ theirs) for mine, theirs, _ in pairs)
        length = sum(float(theirs @ theirs) for _, theirs, _ in pairs)
        if not along > 0 < length:
            return False
        factor = along / length
        return all(_within(mine, factor * theirs, (1 + factor) * error) for mine, theirs, error in pairs)

    @cached_property
    def states(self) -> tuple[Path, Path] | None:
        """The specification's two vectors; None where the optimizer isn't known."""
        if not self.knows_optimizer:
            return None
        run = self.trial.reference_run(self.intervention, max_norm=self.trial.max_norm)
        zeros = {name: torch.zeros_like(p) for name, p in self.trial.start.items()}
        return (
            Path.of(self.trial.start, [state.deployed for state in run]),
            Path.of(zeros, [state.quarantine for state in run]),
        )

    @cached_property
    def moves(self) -> dict[str, list[Tensor]]:
        """module -> after each step what the errors of all fed gradients can have changed, (r,)."""
        if not self.knows_optimizer:
            return {name: [torch.zeros_like(p)] * self.trial.case.steps for name, p in self.trial.start.items()}
        run = self.trial.reference_run(self.intervention, max_norm=self.trial.max_norm)
        return {
            name: list(accumulate(sensitivity(self.trial, s, name, d) for s, d in zip(run, errors, strict=True)))
            for name, errors in self.fed_errors.items()
        }

    @cached_property
    def expected(self) -> list[tuple[Literal["deployed", "quarantine"], Path, Path]]:
        """(which vector, the loop's path, the path that it should follow)."""
        if self.states is not None:
            deployed, quarantine = self.states
            return [("deployed", self.own.deployed, deployed), ("quarantine", self.own.quarantine, quarantine)]
        if self.intervention != "route":
            zeros = Path({name: torch.zeros_like(p) for name, p in self.own.quarantine.items()})
            return [("quarantine", self.own.quarantine, zeros)]
        if can_match_erase(self.trial.setting) is None:
            erase = self._asked.run("erase", clipped=self.limited)
            return [("deployed", self.own.deployed, erase.deployed)]
        return []

    def partings(self, step: int) -> list[_Parting]:
        """Where the vectors after this step are not those that they should be."""
        found = []
        for kind, mine, theirs in self.expected:
            rounding = self.rounding(step, mine, theirs)
            for name, path in mine.items():
                bound = rounding + self.moves[name][step]
                found += _parted(name, kind, path[step + 1], theirs[name][step + 1], bound)
        return found

    def rounding(self, step: int, *paths: Path) -> float:
        """What the rounding of all steps so far can do; of what came later nothing is in it."""
        so_far = [Path({name: p[: step + 2] for name, p in path.items()}) for path in paths]
        moved, size = (max(getattr(path, what) for path in so_far) for what in ("moved", "size"))
        return trajectory_error(step + 1, self.trial.width, moved, size, self.trial.dtype)

    @property
    def deployed_parts(self) -> bool:
        """Whether the deployed vector is off at any step of this arm."""
        steps = range(self.trial.case.steps)
        return any(p.kind == "deployed" for step in steps for p in self.partings(step))

    def sum_agrees(self, step: int) -> bool:
        """Whether deployed + quarantine is the specification's, although the parts are not."""
        if self.states is None:
            return True
        own, exact = self.own.combined, self.states[0] + self.states[1]
        rounding = self.rounding(step, self.own.deployed, self.own.quarantine, *self.states)
        return all(
            _within(path[step + 1], exact[name][step + 1], 2 * (rounding + self.moves[name][step]))
            for name, path in own.items()
        )


def _within(mine: Tensor, theirs: Tensor, bound: Tensor) -> bool:
    return mine.shape == theirs.shape and bool(((mine - theirs).abs() <= bound).all())


def _parted(
    name: str,
    kind: Literal["fed to deployed", "fed to quarantine", "deployed", "quarantine"],
    mine: Tensor,
    theirs: Tensor,
    bound: Tensor,
) -> list[_Parting]:
    """The coordinate that is furthest beyond its bound, if there is one."""
    if _within(mine, theirs, bound):
        return []
    if mine.shape != theirs.shape:
        return [_Parting(module=name, kind=kind, residual=math.inf, allowed=0.0)]
    off = (mine - theirs).abs()
    at = int(torch.where(off <= bound, -1.0, (off / bound).nan_to_num(math.inf, math.inf)).argmax())
    return [_Parting(module=name, kind=kind, residual=float(off[at]), allowed=float(bound[at]))]
