"""What a third party hands in: a small frozen dataclass of callables, with the claims that it makes.

Nothing is subclassed and nothing is registered. Somebody who only has `split(g, V)` writes

    subject = Subject(name="mine", split=split)

and somebody with several configurations maps each setting to its callable. A callable never receives the setting:
the setting says what the callable does, so that the suite knows which theorems apply.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from invariants.errors import SubjectContractError
from reference import ClipPolicy, Gate, Intervention, Optimizer, Space, SplitRule

Capability = Literal["split", "routed_step", "adapter"]
Claims = frozenset[str] | None  # ids of the guarantees that are claimed; None claims every one that applies

SplitFunction = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(g (r,), V (k, r)) -> (kept (r,), removed (r,))"""


@dataclass(frozen=True, kw_only=True)
class SplitSetting:
    """What a split function does, in the vocabulary of the theorems."""

    gate: Gate = "one_sided"
    overshoot: float = 1.0
    preserve_magnitude: bool = False
    subtracts_stored: bool = False
    """`kept` is g minus the stored, rounded `removed`: conservation then obeys a tighter bound."""
    claims: Claims = None

    @property
    def rule(self) -> SplitRule:
        """The three numbers that decide what is removed."""
        return SplitRule(gate=self.gate, overshoot=self.overshoot, preserve_magnitude=self.preserve_magnitude)

    @property
    def label(self) -> str:
        """How reports call this setting."""
        return label_of(self.rule)


def label_of(rule: SplitRule) -> str:
    """A rule in words; what is at its default is left out."""
    extras = [f"overshoot {rule.overshoot:g}"] if rule.overshoot != 1 else []
    extras += ["preserve magnitude"] if rule.preserve_magnitude else []
    return ", ".join([rule.gate, *extras])


class Stepped(NamedTuple):
    """What a step shows: both vectors of every module after it, and the gradients that its optimizer was fed.

    The tensors may be live parameters; the suite copies them. A plain tuple of two or four mappings will do.
    """

    deployed: Mapping[str, Tensor]
    quarantine: Mapping[str, Tensor]
    deployed_grad: Mapping[str, Tensor | None] | None = None
    quarantine_grad: Mapping[str, Tensor | None] | None = None


StepFunction = Callable[[dict[str, Tensor]], Stepped | tuple[Mapping[str, Tensor], ...]]
"""Takes the accumulated gradient of every module, {(r,)}, and makes one training step."""


@dataclass(frozen=True, kw_only=True)
class Stepper:
    """A step together with a way to save and restore all that it needs to go on, parameters included."""

    step: StepFunction
    state_dict: Callable[[], object] | None = None
    load_state_dict: Callable[[object], object] | None = None


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
    interventions: tuple[Intervention, ...] = ("none", "erase", "route")
    reference: Optimizer | None = None
    """The reference optimizer with the same hyperparameters, if the loop's optimizer is meant to be one."""
    claims: Claims = None

    @property
    def label(self) -> str:
        """How reports call this setting."""
        rule = label_of(self.rule)
        parts = [self.space, f"clip {self.clip}" if self.clip else "no clip", self.optimizer]
        return " / ".join(parts if rule == "one_sided" else [*parts, rule])


@dataclass(frozen=True, kw_only=True)
class AdaptedLinear:
    """One adapted Linear, made fresh for every check; what is None is reported as not applicable.

    `merge` puts the adapter into the weight that `weight` shows, `unmerge` takes it out again. `export` gives the
    tensors of the model as deployed, by name, with the merged weight under the name "weight".
    """

    forward: Callable[[Tensor], Tensor]
    deployed: nn.Parameter
    quarantine: nn.Parameter
    ablated: Callable[[], AbstractContextManager[object]] | None = None
    as_base: Callable[[], AbstractContextManager[object]] | None = None
    weight: Callable[[], Tensor] | None = None
    merge: Callable[[], object] | None = None
    unmerge: Callable[[], object] | None = None
    export: Callable[[], Mapping[str, Tensor]] | None = None


AdapterFactory = Callable[[Tensor, Tensor | None], AdaptedLinear]
"""(weight (d_out, d_in), bias (d_out,) or None) -> the adapted Linear, both vectors at zero."""


@dataclass(frozen=True)
class AdapterSetting:
    """An adapter has one setting; it exists so that all capabilities are handled alike."""

    claims: Claims = None
    label: str = "adapter"


Setting = SplitSetting | StepSetting | AdapterSetting


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An implementation under test: any of the capabilities, all optional.

    dtype is the dtype of the tensors that the suite hands in. claims, for settings that make none of their own: ids of
    the invariants that the subject says it keeps; None claims every one that applies. A guarantee that is not claimed
    is measured and reported, and its failure is no violation.
    """

    name: str
    split: SplitFunction | Mapping[SplitSetting, SplitFunction] | None = None
    routed_step: StepFactory | Mapping[StepSetting, StepFactory] | None = None
    adapter: AdapterFactory | Mapping[AdapterSetting, AdapterFactory] | None = None
    dtype: torch.dtype = torch.float64
    claims: Collection[str] | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise SubjectContractError("A subject needs a name; pass Subject(name=...).")
        if not self.dtype.is_floating_point:
            raise SubjectContractError(f"Subject {self.name!r}: dtype must be a floating dtype, not {self.dtype}.")
        kinds = {"split": SplitSetting, "routed_step": StepSetting, "adapter": AdapterSetting}
        for capability, kind in kinds.items():
            given = getattr(self, capability)
            values = given.values() if isinstance(given, Mapping) else [] if given is None else [given]
            if any(not callable(value) for value in values) or (isinstance(given, Mapping) and not given):
                raise SubjectContractError(
                    f"Subject {self.name!r}: {capability} must be a callable or a non-empty mapping from settings to "
                    f"callables, not {given!r}."
                )
            for setting in given if isinstance(given, Mapping) else ():
                if not isinstance(setting, kind):
                    raise SubjectContractError(
                        f"Subject {self.name!r}: a key of {capability} must be a {kind.__name__}, not {setting!r}."
                    )

    def settings(self, capability: Capability) -> dict[Setting, Callable[..., object]]:
        """Each setting of a capability with its callable; empty if the subject lacks the capability."""
        given = getattr(self, capability)
        if given is None:
            return {}
        if isinstance(given, Mapping):
            return dict(given)
        default: dict[Capability, Setting] = {
            "split": SplitSetting(), "routed_step": StepSetting(), "adapter": AdapterSetting(),
        }  # fmt: skip
        return {default[capability]: given}

    def claims_it(self, invariant_id: str, setting: Setting) -> bool:
        """Whether the subject says that it keeps this invariant under this setting."""
        claims = setting.claims if setting.claims is not None else self.claims
        return claims is None or invariant_id in claims
