"""A training loop on the gradients of one case, replayed open loop."""

import copy
import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from invariants.bounds import gamma, underflow, unit_roundoff
from invariants.cases.routed_step import StepCase
from invariants.contracts.routed_step import LOGGED, StepFactory, Stepper, StepSetting
from invariants.errors import SubjectContractError
from invariants.trajectory import Gradients, Path, Trajectory
from reference import SGD, Intervention, RoutedState, Routing, gradient_parts, initial, routed_step
from reference.routed_step import Parts, means_after


@dataclass(frozen=True)
class StepTrial:
    """A training loop on the gradients of one case, replayed open loop, and what it did under each intervention."""

    factory: StepFactory
    _: KW_ONLY
    setting: StepSetting
    case: StepCase
    dtype: torch.dtype
    _runs: dict[tuple[str, bool], Trajectory] = field(default_factory=dict, init=False)
    _refreshed: dict[str, Trajectory] = field(default_factory=dict, init=False)

    def cast(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As the subject gets them, in float64 again."""
        return {name: t.to(self.dtype).double() for name, t in tensors.items()}

    @cached_property
    def gradients(self) -> list[dict[str, Tensor]]:
        """The case's gradients step by step, as the subject gets them, float64."""
        return [self.cast({name: g[t] for name, g in self.case.gradients.items()}) for t in range(self.case.steps)]

    @cached_property
    def basis(self) -> dict[str, Tensor]:
        """module -> (k, r), as the subject gets it, float64."""
        return self.cast(self.case.basis)

    @cached_property
    def other_basis(self) -> dict[str, Tensor]:
        """Another basis of the same shapes, float64: as orthonormal, and in no module the same one."""
        return {name: -V.roll(1, dims=1) for name, V in self.basis.items()}

    @cached_property
    def start(self) -> dict[str, Tensor]:
        """module -> (r,), as the subject gets it, float64."""
        return self.cast(self.case.start)

    @property
    def judgeable(self) -> bool:
        """Whether the case survives the cast to the subject's dtype, and is not too long for a bound in it."""
        bounded = all(math.isfinite(gamma(sum(V.shape) + 4, self.dtype)) for V in self.basis.values())
        finite = all(bool(g.isfinite().all()) for step in self.gradients for g in step.values())
        return bounded and finite and self.gate_is_settled

    @cached_property
    def gate_is_settled(self) -> bool:
        """Whether rounding decides nowhere which axes the predictable gate has open, clipped or not.

        A coefficient of x is off by at most width u |V| max|x|, x being split after at most 8 roundings a step.
        """
        if self.setting.rule.gate != "predictable" or self.setting.splitting is None:
            return True
        error = 8 * self.case.steps * self.width * unit_roundoff(self.dtype)
        for max_norm in (self.max_norm, None):
            states = self.reference_run(self.setting.splitting, max_norm=max_norm)
            for name, V in self.basis.items():
                in_gradients = self.setting.space == "gradient"
                largest = max(
                    float((g if in_gradients else s.point)[name].abs().max())
                    for g, s in zip(self.gradients, states, strict=True)
                )
                near = error * V.abs().sum(dim=1) * largest  # (k,)
                if any(bool((s.means[name].abs() <= near)[V.any(dim=1)].any()) for s in states):
                    return False
        return True

    @property
    def splitting(self) -> Intervention:
        """The arm that splits, of settings that have one."""
        assert self.setting.splitting is not None, "only asked where a hypothesis has asked for it"
        return self.setting.splitting

    @property
    def max_norm(self) -> float | None:
        """The limit of the clip; None if the loop has none."""
        return self.case.max_norm if self.setting.clip else None

    def fresh(
        self, intervention: Intervention, *, max_norm: float | None, basis: Mapping[str, Tensor] | None = None
    ) -> Stepper:
        """A new loop at the start of the case."""
        made = self.factory(
            self.handed(self.start),
            self.handed(self.basis if basis is None else basis),
            intervention=intervention,
            max_norm=max_norm,
        )
        if isinstance(made, Stepper):
            return made
        if not callable(made):
            raise SubjectContractError(
                f"routed_step must make a step function or a Stepper, not {type(made).__name__}."
            )
        return Stepper(step=made)

    def advance(
        self, stepper: Stepper, gradients: list[dict[str, Tensor]], *, micro_batches: tuple[float, ...] = ()
    ) -> Trajectory:
        """Steps through the gradients and keeps a copy of what each step showed.

        Before each step these multiples of its gradient are accumulated, if there are any.
        """
        shown = []
        for g in gradients:
            for factor in micro_batches:
                assert stepper.accumulate is not None, "only called for loops that can accumulate"
                stepper.accumulate(self.handed({name: factor * t for name, t in g.items()}))
            shown.append(self._step(stepper, g))
        return self._trajectory(shown)

    def _trajectory(self, shown: list[tuple[Any, ...]]) -> Trajectory:
        deployed, quarantine, fed, logged = ([step[i] for step in shown] for i in range(4))
        zeros = {name: torch.zeros_like(p) for name, p in self.start.items()}
        return Trajectory(
            deployed=Path.of(self.start, deployed), quarantine=Path.of(zeros, quarantine),
            fed=None if None in fed else fed, logged=logged,
        )  # fmt: skip

    def _step(self, stepper: Stepper, g: dict[str, Tensor]) -> tuple[Any, ...]:
        returned = stepper.step(self.handed(g))
        if not isinstance(returned, tuple) or len(returned) not in (2, 4, 5):
            what = f"{len(returned)} of them" if isinstance(returned, tuple) else type(returned).__name__
            raise SubjectContractError(
                "A step must return the two mappings (deployed, quarantine), or four with the gradients that both were "
                f"fed, or five with the values that were logged, not {what}."
            )
        deployed, quarantine, *gradients = returned[:4]
        shown = [_copied_gradients(part) for part in gradients if part is not None]
        fed = tuple(shown) if len(shown) == 2 else None
        logged = _copied_log(returned[4]) if len(returned) == 5 and returned[4] is not None else {}
        return _copied(deployed, g, "deployed"), _copied(quarantine, g, "quarantine"), fed, logged

    def handed(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies in the subject's dtype."""
        return {name: t.to(self.dtype).clone() for name, t in tensors.items()}

    def refreshed(self, intervention: Intervention) -> Trajectory | None:
        """The whole case, with `other_basis` from the step `refreshed_at` on; None if the loop can't be refreshed."""
        if intervention not in self._refreshed:
            stepper = self.fresh(intervention, max_norm=self.max_norm)
            at, refresh = self.refreshed_at, stepper.refresh
            if refresh is None:
                return None
            before = [self._step(stepper, g) for g in self.gradients[:at]]
            refresh(self.handed(self.other_basis))
            after = [self._step(stepper, g) for g in self.gradients[at:]]
            self._refreshed[intervention] = self._trajectory([*before, *after])
        return self._refreshed[intervention]

    @property
    def refreshed_at(self) -> int:
        """How many steps `refreshed` takes with the first basis."""
        return self.case.steps // 2

    def run(self, intervention: Intervention, *, clipped: bool = True) -> Trajectory:
        """The whole case under one intervention; remembered, since many checks look at the same run."""
        key = (intervention, clipped)
        if key not in self._runs:
            stepper = self.fresh(intervention, max_norm=self.max_norm if clipped else None)
            self._runs[key] = self.advance(stepper, self.gradients)
        return self._runs[key]

    @cached_property
    def norms(self) -> list[float]:
        """The global norm of each step's gradient."""
        return [float(torch.cat(list(g.values())).norm()) for g in self.gradients]

    @cached_property
    def coordinates(self) -> int:
        """How many coordinates a gradient has, over all modules."""
        return sum(g.numel() for g in self.start.values())

    @cached_property
    def norm_rounding(self) -> float:
        """Relative error of a norm over both sets, and of a factor made from it.

        Norms of half types are accumulated in float32, as torch does it; what is rounded to the dtype itself is few.
        """
        return gamma(2 * self.coordinates + 8, self.wide) + gamma(8, self.dtype)

    @cached_property
    def norm_underflow(self) -> float:
        """What a norm can lose where squares leave the normal range: sqrt(|x|^2 + e) - |x| <= sqrt(e)."""
        return math.sqrt(underflow(self.coordinates, self.wide))

    @property
    def wide(self) -> torch.dtype:
        """What norms are accumulated in."""
        return self.dtype if self.dtype in (torch.float64, torch.float32) else torch.float32

    @cached_property
    def steps_clipped(self) -> int:
        """How often the gradient was longer than the limit."""
        return 0 if self.max_norm is None else sum(norm > self.max_norm for norm in self.norms)

    @cached_property
    def direction_is_open(self) -> bool:
        """Whether preserve_magnitude may blow up mere rounding, which is all that is kept of a gradient in span(V)."""

        def in_span(g: Tensor, V: Tensor) -> bool:
            size = V.abs()
            rounding = gamma(sum(V.shape) + 4, self.dtype) * (g.abs() + size.T @ (size @ g.abs()))
            return bool(V.any() and g.any() and (g - V.T @ (V @ g)).norm() <= 8 * rounding.norm())

        pairs = ((g, self.basis[name]) for gradients in self.gradients for name, g in gradients.items())
        return self.setting.rule.preserve_magnitude and any(in_span(g, V) for g, V in pairs)

    @cached_property
    def removed_something(self) -> int:
        """In how many steps the rule removes anything from the gradient."""
        removed = ([part for _, part in parts.values() if part is not None] for parts in self.split_gradients)
        return sum(any(bool(part.any()) for part in parts) for parts in removed)

    @cached_property
    def split_gradients(self) -> list[Parts]:
        """What the rule makes of each gradient, without a clip."""
        routing, means, split = Routing(optimizer=SGD(lr=1.0), rule=self.setting.rule), dict[str, Tensor](), []
        for g in self.gradients:
            split.append(gradient_parts(routing, g, self.basis, means))
            means = means_after(routing.rule, means, split[-1].coefficients)
        return split

    @cached_property
    def width(self) -> float:
        """The longest sum inside a step, r + k + 8, times the most that |V|^T |V| spreads an entry."""
        spreads = {name: float((V.abs().T @ V.abs()).sum(dim=1).max()) for name, V in self.basis.items()}
        return max((sum(V.shape) + 8) * max(1.0, spreads[name]) for name, V in self.basis.items())

    def reference_run(self, intervention: Intervention, *, max_norm: float | None) -> list[RoutedState]:
        """The specification's states after each step, in float64 on the same (cast) gradients; plain SGD's where the
        setting names no optimizer."""
        setting, states = self.setting, list[RoutedState]()
        routing = Routing(
            optimizer=setting.reference or SGD(lr=1.0), intervention=intervention, space=setting.space,
            clip=setting.clip or "before", max_norm=max_norm, rule=setting.rule,
            retained=setting.retained if intervention == "erase" else 1.0,
        )  # fmt: skip
        state = initial(routing, self.start)
        for g in self.gradients:
            state = routed_step(routing, state, g, self.basis)
            states.append(state)
        return states

    def saved(self, stepper: Stepper) -> object:
        """A deep copy of what the loop says it needs to go on."""
        assert stepper.state_dict is not None, "only called for loops that can be saved"
        return copy.deepcopy(stepper.state_dict())


def _copied(part: Mapping[str, Tensor], g: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    if not isinstance(part, Mapping) or set(part) != set(g):
        raise SubjectContractError(f"A step must return {what} as a mapping over the modules {sorted(g)}.")
    for name, p in part.items():
        if not isinstance(p, Tensor) or p.shape != g[name].shape:
            raise SubjectContractError(f"A step returned {what}[{name!r}] with another shape than its gradient.")
    return {name: p.detach().double().clone() for name, p in part.items()}


def _copied_log(logged: Mapping[str, float]) -> dict[str, float]:
    if not isinstance(logged, Mapping):
        raise SubjectContractError(
            f"A step must return what it logged as a mapping from names to numbers, not {type(logged).__name__}."
        )
    unknown = sorted(set(logged) - set(LOGGED))
    if unknown:
        raise SubjectContractError(f"A step logged {unknown[0]!r}; the suite knows {', '.join(LOGGED)}.")
    try:
        return {name: float(value) for name, value in logged.items()}
    except (TypeError, ValueError) as error:
        raise SubjectContractError(f"A step logged something that is no number: {error}.") from None


def _copied_gradients(part: Mapping[str, Tensor | None]) -> Gradients:
    return {name: None if g is None else g.detach().double().clone() for name, g in part.items()}
