"""This package as a subject of the suite: its split, its RoutedOptimizer in every combination, its adapter."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from itertools import product
from typing import Any, get_args

import torch
from peft import get_peft_model, get_peft_model_state_dict
from torch import Tensor, nn

import reference
from invariants import (
    LOGGED,
    AdaptedLinear,
    ContrastiveProblem,
    SplitSetting,
    Stepped,
    Stepper,
    StepSetting,
    Subject,
    TrainSetting,
    all_but,
)
from projected_grpo.adapter import SVDRoutingConfig, ablate_quarantine, export_deployed, routed_vectors
from projected_grpo.adapter.layer import Linear
from projected_grpo.basis import Basis
from projected_grpo.claims import Guarantee
from projected_grpo.cli.subject_grpo import losses
from projected_grpo.cli.subject_logs import logs
from projected_grpo.cli.subject_training import grade, train
from projected_grpo.clip import ClipPolicy
from projected_grpo.extraction import extract_basis
from projected_grpo.optimizer import RoutedOptimizer
from projected_grpo.routing import Intervention, Space
from projected_grpo.split import MemorylessGate, SplitRule, split
from projected_grpo.vectors import VectorPair

Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]

# Each of torch's optimizers beside the specification's with the same hyperparameters.
OPTIMIZERS: dict[str, tuple[Make, reference.Optimizer]] = {
    "SGD": (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=True), reference.SGD(lr=0.1, momentum=0.9)),
    "AdamW": (lambda p: torch.optim.AdamW(p, lr=0.03), reference.AdamW(lr=0.03)),
}
COMBINATIONS: tuple[tuple[Space, ClipPolicy], ...] = (
    *(("gradient", clip) for clip in get_args(ClipPolicy)), ("update", "before"), ("displacement", "before"),
)  # fmt: skip
OTHER_RULES = (
    SplitRule(gate="no_gate"), SplitRule(gate="reverse"), SplitRule(gate="predictable"), SplitRule(overshoot=1.5),
    SplitRule(preserve_magnitude=True),
)  # fmt: skip
# In update space it shows only under an optimizer that looks at its point, as decay does; all is retained elsewhere.
RETAINED: tuple[tuple[str, Space, float], ...] = (
    ("AdamW", "update", 0.0), ("AdamW", "update", 0.5), ("SGD", "displacement", 0.0), ("SGD", "displacement", 0.5),
)  # fmt: skip
CHECKED_AS: dict[Guarantee, str] = {
    "keeps_sum": "optimizer.keeps_sum",
    "erase_match": "optimizer.erase_match",
    "covers_both": "clip.covers_both",
    "span": "optimizer.span",
    "no_update_leak": "optimizer.update_leak",
    "no_displacement_leak": "optimizer.displacement_leak",
    "no_ratchet": "optimizer.no_ratchet",
    "unbiased": "optimizer.noise_drift",
    "refreshed_span": "optimizer.refresh_span",
    "refreshed_update": "optimizer.refresh_update_leak",
    "refreshed_displacement": "optimizer.refresh_displacement_leak",
}


def subject() -> Subject:
    """The package in float64; what it claims of each setting is what `RoutedOptimizer.explain` prints."""
    return Subject(
        name="projected_grpo",
        split={setting: _split_function(setting) for setting in _split_settings()},
        routed_step={
            setting: _step_factory(setting)
            for setting in (
                *(_step_setting(name, *combination) for combination, name in product(COMBINATIONS, OPTIMIZERS)),
                *(_step_setting("SGD", space, "before", rule) for rule, space in product(OTHER_RULES, get_args(Space))),
                *(_erasing(*erasing) for erasing in RETAINED),
            )
        },
        adapter=adapted_linear,
        grpo=losses(),
        extraction=extracted,
        train={TrainSetting(teacher=True): train},
        grade=grade,
        logs=logs(),
    )


def _split_settings() -> list[SplitSetting]:
    return [
        SplitSetting(gate=gate, overshoot=overshoot, preserve_magnitude=preserve, subtracts_stored=True)
        for gate, overshoot, preserve in product(get_args(MemorylessGate), (1.0, 1.5), (False, True))
    ]


def _split_function(setting: SplitSetting) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    rule = SplitRule(gate=setting.gate, overshoot=setting.overshoot, preserve_magnitude=setting.preserve_magnitude)

    def split_with_rule(g: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
        kept, removed, _ = split(g, V, rule=rule)
        return kept, removed

    return split_with_rule


def _step_setting(name: str, space: Space, clip: ClipPolicy, rule: SplitRule | None = None) -> StepSetting:
    rule = rule or SplitRule()
    setting = StepSetting(
        optimizer=name, space=space, clip=clip, clip_epsilon=0.0, reference=OPTIMIZERS[name][1],
        constant_calls=name == "SGD",  # in one call for all parameters; AdamW is called as most call it
        rule=reference.SplitRule(
            gate=rule.gate, overshoot=rule.overshoot, preserve_magnitude=rule.preserve_magnitude
        ),
    )  # fmt: skip
    return replace(setting, claims=_claims(setting))


def _erasing(name: str, space: Space, retained: float) -> StepSetting:
    """Only erase has something to retain."""
    setting = replace(_step_setting(name, space, "before"), retained=retained, interventions=("none", "erase"))
    return replace(setting, claims=_claims(setting))


def _claims(setting: StepSetting) -> frozenset[str]:
    """The invariants that a RoutedOptimizer with this setting says it keeps."""
    one = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    arm = setting.splitting or "route"
    loop = _Loop(setting, {"probe": torch.zeros_like(one[0])}, {"probe": one}, intervention=arm, max_norm=1.0)
    return all_but(*(CHECKED_AS[name] for name, claim in loop.optimizer.guarantees().items() if not claim.holds))


def _step_factory(setting: StepSetting) -> Callable[..., Stepper]:
    def factory(
        start: dict[str, Tensor], basis: dict[str, Tensor], *, intervention: Intervention, max_norm: float | None
    ) -> Stepper:
        return _Loop(setting, start, basis, intervention=intervention, max_norm=max_norm).stepper()

    return factory


class _Loop:
    """Two vectors a module, stepped by a RoutedOptimizer on gradients that are handed in."""

    def __init__(
        self,
        setting: StepSetting,
        start: dict[str, Tensor],
        basis: dict[str, Tensor],
        *,
        intervention: Intervention,
        max_norm: float | None,
    ) -> None:
        self.pairs = {
            name: VectorPair(nn.Parameter(p.clone()), nn.Parameter(torch.zeros_like(p))) for name, p in start.items()
        }
        base = OPTIMIZERS[setting.optimizer][0]([p for pair in self.pairs.values() for p in pair if p is not None])
        base.register_step_pre_hook(self._look)
        self.fed: tuple[dict[str, Tensor | None], dict[str, Tensor | None]] = ({}, {})
        self.optimizer = RoutedOptimizer(
            base,
            self.pairs,
            Basis(basis),
            intervention=intervention,
            space=setting.space,
            clip=setting.clip or "before",
            max_norm=max_norm,
            rule=SplitRule(
                gate=setting.rule.gate,
                overshoot=setting.rule.overshoot,
                preserve_magnitude=setting.rule.preserve_magnitude,
            ),
            retained=setting.retained if intervention == "erase" else 1.0,
        )

    def _look(self, *_: object) -> None:
        """What the base optimizer is about to be fed, after clip and split."""
        deployed = {name: pair.deployed.grad for name, pair in self.pairs.items()}
        quarantine = {name: q.grad for name, (_, q) in self.pairs.items() if q is not None}
        self.fed = (deployed, quarantine)

    def accumulate(self, gradients: dict[str, Tensor]) -> None:
        for name, g in gradients.items():
            vector = self.pairs[name].deployed
            vector.grad = g if vector.grad is None else vector.grad + g

    def step(self, gradients: dict[str, Tensor]) -> Stepped:
        self.accumulate(gradients)
        try:
            self.optimizer.step()
        finally:
            self.optimizer.zero_grad()
        return Stepped(
            {name: pair.deployed for name, pair in self.pairs.items()},
            {name: q for name, (_, q) in self.pairs.items() if q is not None},
            *self.fed,
            self.logged(),
        )

    def logged(self) -> dict[str, float] | None:
        """What the suite reads; under route alone, since reading costs as much as a step."""
        if self.optimizer.routing.intervention != "route":
            return None
        return {name: value for name, value in asdict(self.optimizer.diagnostics()).items() if name in LOGGED}

    def refresh(self, basis: dict[str, Tensor]) -> None:
        self.optimizer.refresh(Basis(basis))

    def state_dict(self) -> dict[str, Any]:
        vectors = {name: [p.detach() for p in pair if p is not None] for name, pair in self.pairs.items()}
        return {"vectors": vectors, "optimizer": self.optimizer.state_dict()}

    @torch.no_grad()
    def load_state_dict(self, state: Any) -> None:
        for name, values in state["vectors"].items():
            for p, value in zip(self.pairs[name], values, strict=True):
                if p is not None:
                    p.copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])

    def stepper(self) -> Stepper:
        return Stepper(
            step=self.step, state_dict=self.state_dict, load_state_dict=self.load_state_dict,
            accumulate=self.accumulate, refresh=self.refresh,
        )  # fmt: skip


class _OneLinear(nn.Module):
    """The smallest model that can be adapted."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
        with torch.no_grad():
            self.linear.weight.copy_(weight)
            if bias is not None:
                self.linear.bias.copy_(bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        return y


def adapted_linear(weight: Tensor, bias: Tensor | None) -> AdaptedLinear:
    """One Linear, adapted by way of PEFT."""
    model = get_peft_model(_OneLinear(weight, bias), SVDRoutingConfig(target_modules=["linear"]))
    layer = next(module for module in model.modules() if isinstance(module, Linear))
    deployed, quarantine = routed_vectors(model)["linear"]
    assert quarantine is not None, "the configuration asks for one"

    def ablated() -> AbstractContextManager[None]:
        return ablate_quarantine(model)

    def export() -> dict[str, Tensor]:
        return {name.removeprefix("linear."): value for name, value in export_deployed(model).state_dict().items()}

    return AdaptedLinear(
        forward=model,
        deployed=deployed,
        quarantine=quarantine,
        ablated=ablated,
        as_base=model.disable_adapter,
        weight=lambda: layer.base_layer.weight,
        merge=model.merge_adapter,
        unmerge=model.unmerge_adapter,
        export=export,
        checkpoint=lambda: get_peft_model_state_dict(model),
    )


def extracted(problem: ContrastiveProblem) -> Basis:
    """The basis of vectors whose model the suite plays."""
    vectors = {name: VectorPair(deployed, problem.quarantine[name]) for name, deployed in problem.deployed.items()}
    return extract_basis(
        vectors,
        problem.pairs,
        problem.k,
        relative_floor=problem.relative_floor,
        global_floor=problem.global_floor,
        ablated=problem.ablated,
    )
