"""The specification as a subject: the suite's own zero point."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import get_args

import torch
from torch import Tensor, nn

from invariants.contracts import (
    AdaptedLinear,
    Claims,
    ContrastiveProblem,
    SplitFunction,
    SplitSetting,
    StepFactory,
    Stepped,
    Stepper,
    StepSetting,
)
from invariants.hypotheses import cannot_ratchet
from invariants.registry import all_but
from invariants.subject import Subject
from invariants.subjects import reference_training
from invariants.subjects.reference_grpo import losses
from reference import (
    SGD,
    AdamW,
    ClipPolicy,
    Intervention,
    MemorylessGate,
    Optimizer,
    RoutedState,
    Routing,
    Space,
    SplitRule,
    drift,
    global_norm,
    gradient_parts,
    initial,
    refreshed,
    routed_step,
    split,
)
from reference.adapter import SVDLinear, viewed_as
from reference.drift import quotient
from reference.extraction import basis_from_pairs

OPTIMIZERS: dict[str, Optimizer] = {
    "SGD": SGD(lr=0.1, momentum=0.9),
    "SGD with decay": SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01, decoupled_decay=0.01),
    "AdamW": AdamW(lr=0.03),
}
COMBINATIONS: tuple[tuple[Space, ClipPolicy], ...] = (
    ("gradient", "before"), ("gradient", "joint"), ("gradient", "separate"), ("gradient", "deployed_only"),
    ("update", "before"), ("displacement", "before"),
)  # fmt: skip
"""Every space with every clip that it has; other combinations are refused."""
OTHER_RULES = (
    SplitRule(gate="no_gate"), SplitRule(gate="reverse"), SplitRule(gate="predictable"), SplitRule(overshoot=1.5),
    SplitRule(preserve_magnitude=True),
)  # fmt: skip
RETAINED: tuple[tuple[Space, str, float], ...] = (
    ("update", "AdamW", 0.0), ("update", "AdamW", 0.5), ("displacement", "SGD", 0.0), ("displacement", "SGD", 0.5),
)  # fmt: skip
"""Space, optimizer, and the share of what is dropped that stays in the point; all of it does in the other settings. In
update space that shows only under an optimizer which looks at its point, as decay does."""
LEAKS = ("optimizer.update_leak", "optimizer.displacement_leak")


def claims(setting: StepSetting) -> Claims:
    """What the theorems promise of a setting, beyond what makes an invariant inapplicable.

    Its optimizers have a memory, so none of them turns to a new basis at once in gradient space.
    """
    unclaimed = ["optimizer.nonfinite_gradient"]
    if cannot_ratchet(setting):
        unclaimed.append("optimizer.no_ratchet")
    if setting.space == "displacement":
        unclaimed.append("optimizer.update_leak")
    if setting.space == "gradient":
        unclaimed.append("optimizer.refresh_update_leak")
        if isinstance(setting.reference, AdamW):
            unclaimed += ["optimizer.keeps_sum", "optimizer.span", "optimizer.no_ratchet", *LEAKS]
        elif setting.optimizer == "SGD with decay":
            unclaimed += ["optimizer.no_ratchet", *LEAKS]
    return all_but(*dict.fromkeys(unclaimed))


def split_function(rule: SplitRule) -> SplitFunction:
    """The specification's split under one rule."""

    def split_with_rule(g: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
        kept, removed, _ = split(g, V, rule)
        return kept, removed

    return split_with_rule


def step_factory(routing: Routing) -> StepFactory:
    """Loops that take the specification's routed step."""

    def factory(
        start: dict[str, Tensor], basis: dict[str, Tensor], *, intervention: Intervention, max_norm: float | None
    ) -> Stepper:
        retained = routing.retained if intervention == "erase" else 1.0
        chosen = replace(routing, intervention=intervention, max_norm=max_norm, retained=retained)
        return _Loop(chosen, start, basis).stepper()

    return factory


class _Loop:
    """The specification's pure step, with its state held between calls."""

    def __init__(self, routing: Routing, start: Mapping[str, Tensor], basis: Mapping[str, Tensor]) -> None:
        self.routing, self.basis = routing, basis
        self.state: RoutedState = initial(routing, start)
        self.waiting: dict[str, Tensor] = {}  # module -> the sum of its micro-batches so far

    def accumulate(self, g: dict[str, Tensor]) -> None:
        self.waiting = {name: self.waiting[name] + t if name in self.waiting else t for name, t in g.items()}

    def refresh(self, basis: dict[str, Tensor]) -> None:
        self.basis, self.state = basis, refreshed(self.state)

    def step(self, g: dict[str, Tensor]) -> Stepped:
        self.accumulate(g)
        g, self.waiting = self.waiting, {}
        unsplit = replace(self.routing, intervention="none", retained=1.0)
        parts = gradient_parts(
            self.routing if self.routing.space == "gradient" else unsplit, g, self.basis, self.state.means
        )
        self.state = routed_step(self.routing, self.state, g, self.basis)
        return Stepped(
            self.state.deployed, self.state.quarantine,
            {name: kept for name, (kept, _) in parts.items()}, {name: removed for name, (_, removed) in parts.items()},
            self.logged(g),
        )  # fmt: skip

    def logged(self, g: dict[str, Tensor]) -> dict[str, float]:
        displacement = {name: p - self.state.start[name] for name, p in self.state.deployed.items()}
        gauges = drift(displacement, self.state.quarantine, self.basis)
        covered = [name for name, V in self.basis.items() if len(V)]
        hackward = global_norm(torch.relu(self.basis[name] @ g[name]) for name in covered)
        return {
            "grad_norm_pre_clip": self.state.norm_pre_clip, "grad_norm_post_clip": self.state.norm_post_clip,
            "cos_pre": quotient(hackward, global_norm(g[name] for name in covered)),
            "drift_ratio": gauges.ratio, "drift_opposition": gauges.opposition,
        }  # fmt: skip

    def load(self, state: object) -> None:
        assert isinstance(state, RoutedState)
        self.state = state

    def stepper(self) -> Stepper:
        return Stepper(
            step=self.step, state_dict=lambda: self.state, load_state_dict=self.load, accumulate=self.accumulate,
            refresh=self.refresh,
        )  # fmt: skip


def step_settings() -> dict[StepSetting, StepFactory]:
    """Every space, clip and optimizer under the default rule, and every other rule under one of each."""
    made: dict[StepSetting, StepFactory] = {}
    routings = [
        (name, Routing(optimizer=optimizer, space=space, clip=clip))
        for (space, clip), (name, optimizer) in product(COMBINATIONS, OPTIMIZERS.items())
    ]
    for rule, space in product(OTHER_RULES, get_args(Space)):
        routings.append(("SGD", Routing(optimizer=OPTIMIZERS["SGD"], space=space, rule=rule)))
    for space, name, retained in RETAINED:
        erase = Routing(optimizer=OPTIMIZERS[name], intervention="erase", space=space, retained=retained)
        routings.append((name, erase))
    for name, routing in routings:
        setting = StepSetting(
            optimizer=name, space=routing.space, clip=routing.clip, clip_epsilon=0.0, rule=routing.rule,
            reference=routing.optimizer, retained=routing.retained,
            interventions=("none", "erase") if routing.intervention == "erase" else ("none", "erase", "route"),
        )  # fmt: skip
        made[replace(setting, claims=claims(setting))] = step_factory(routing)
    return made


def adapted_linear(weight: Tensor, bias: Tensor | None) -> AdaptedLinear:
    """The specification's SVDLinear; it merges by handing out a weight, so it has nothing to unmerge."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    with torch.no_grad():
        linear.weight.copy_(weight)
        if bias is not None:
            linear.bias.copy_(bias)
    module = SVDLinear(linear)

    def export() -> dict[str, Tensor]:
        return {"weight": module.merged_weight(deployed_only=True)}

    def checkpoint() -> dict[str, Tensor]:
        return dict(module.state_dict())

    adapted = {"linear": module}
    return AdaptedLinear(
        forward=module, deployed=module.deployed, quarantine=module.quarantine,
        ablated=lambda: viewed_as("deployed", adapted), as_base=lambda: viewed_as("base", adapted), export=export,
        checkpoint=checkpoint,
    )  # fmt: skip


def extracted(problem: ContrastiveProblem) -> dict[str, Tensor]:
    """The specification's basis, of the model as deployed."""
    with problem.ablated():
        return basis_from_pairs(
            problem.pairs, problem.deployed, problem.k, relative_floor=problem.relative_floor,
            global_floor=problem.global_floor,
        )  # fmt: skip


def split_settings() -> dict[SplitSetting, SplitFunction]:
    """Every gate, with and without overshoot and preserve_magnitude."""
    settings = [
        SplitSetting(gate=gate, overshoot=overshoot, preserve_magnitude=preserve, subtracts_stored=True)
        for gate, overshoot, preserve in product(get_args(MemorylessGate), (1.0, 1.5), (False, True))
    ]
    return {setting: split_function(setting.rule) for setting in settings}


def subject() -> Subject:
    """The specification, in every setting that it has."""
    return Subject(
        name="reference", split=split_settings(), routed_step=step_settings(), adapter=adapted_linear, grpo=losses(),
        extraction=extracted, train={reference_training.SETTING: reference_training.train},
    )  # fmt: skip
