"""What a training loop takes and shows, and what a setting says of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from invariants.contracts.claims import Claims
from invariants.contracts.split import label_of
from reference import ClipPolicy, Intervention, Optimizer, Space, SplitRule


class Stepped(NamedTuple):
    """What a step shows: both vectors of every module after it, the gradients that its optimizer was fed, and the log.

    The tensors may be live parameters; the suite copies them. A plain tuple of two, four or five mappings will do.
    logged: any of the values that are named in LOGGED, as the loop logged them for this step.
    """

    deployed: Mapping[str, Tensor]
    quarantine: Mapping[str, Tensor]
    deployed_grad: Mapping[str, Tensor | None] | None = None
    quarantine_grad: Mapping[str, Tensor | None] | None = None
    logged: Mapping[str, float] | None = None


LOGGED = ("grad_norm_pre_clip", "grad_norm_post_clip", "cos_pre", "drift_ratio", "drift_opposition")
"""The logged values that the suite knows: norms of the accumulated gradient and of what was fed, the share of the
accumulated gradient that is hack-ward, and the gauges of reference.drift on what was learned up to this step."""


StepFunction = Callable[[dict[str, Tensor]], Stepped | tuple[Mapping[str, Any], ...]]
"""Takes the accumulated gradient of every module, {(r,)}, and makes one training step."""


@dataclass(frozen=True, kw_only=True)
class Stepper:
    """A step, and what else a loop can do; what is None is reported as not applicable.

    state_dict, load_state_dict: save and restore all that the loop needs to go on, parameters included.
    accumulate: takes one micro-batch's gradient {(r,)} without stepping; the next step brings the last one, and is
        made on the sum of all.
    refresh: replaces the basis {(k, r)} from the next step on.
    """

    step: StepFunction
    state_dict: Callable[[], object] | None = None
    load_state_dict: Callable[[object], object] | None = None
    accumulate: Callable[[dict[str, Tensor]], object] | None = None
    refresh: Callable[[dict[str, Tensor]], object] | None = None


class StepFactory(Protocol):
    """Makes a fresh training loop over two parameter sets; called anew for every run of a check.

    start: module -> (r,), where the deployed vector begins (the quarantine begins at zero);
    basis: module -> (k, r), k = 0 for some is legal; max_norm: the clip's limit, None for no clip.
    """

    def __call__(  # noqa: D102  (the class's docstring says it)
        self,
        start: dict[str, Tensor],
        basis: dict[str, Tensor],
        *,
        intervention: Intervention,
        max_norm: float | None,
    ) -> StepFunction | Stepper: ...


@dataclass(frozen=True, kw_only=True)
class StepSetting:
    """What a training loop does, in the vocabulary of the theorems."""

    optimizer: str = "its own optimizer"
    space: Space = "gradient"
    clip: ClipPolicy | None = "before"
    """None: the loop has no clip, and is only ever called with max_norm=None."""
    clip_epsilon: float = 1e-6
    """At most this is added to the norm in max_norm / (norm + epsilon); torch.nn.utils.clip_grad_norm_ adds 1e-6."""
    rule: SplitRule = field(default_factory=SplitRule)
    retained: float = 1.0
    """Under erase outside gradient space: the share of what is dropped that stays in the optimizer's point."""
    interventions: tuple[Intervention, ...] = ("none", "erase", "route")
    reference: Optimizer | None = None
    """The reference optimizer with the same hyperparameters, if the loop's optimizer is meant to be one."""
    constant_calls: bool = False
    """Whether a step calls as many operators for many modules of one shape as for few, its optimizer's included."""
    claims: Claims = None

    @property
    def splitting(self) -> Intervention | None:
        """The arm whose deployed vector is looked at: route, or erase of a loop without it."""
        return next((arm for arm in ("route", "erase") if arm in self.interventions), None)

    @property
    def label(self) -> str:
        """How reports call this setting."""
        rule = label_of(self.rule)
        parts = [self.space, f"clip {self.clip}" if self.clip else "no clip", self.optimizer]
        parts += [rule] if rule != "one_sided" else []
        return " / ".join([*parts, f"retained {self.retained:g}"] if self.retained != 1 else parts)
