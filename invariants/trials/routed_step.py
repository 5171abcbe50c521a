"""A training loop on the gradients of one case, replayed open loop."""

import copy
import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from invariants.bounds import gamma
from invariants.cases.routed_step import StepCase
from invariants.contracts.routed_step import StepFactory, Stepper, StepSetting
from invariants.errors import SubjectContractError
from invariants.trajectory import Gradients, Path, Trajectory
from reference import Intervention, Routing, initial, routed_step
from reference.split import gated


@dataclass(frozen=True)
class StepTrial:
    """A training loop on the gradients of one case, replayed open loop, and what it did under each intervention."""

    factory: StepFactory
    _: KW_ONLY
    setting: StepSetting
    case: StepCase
    dtype: torch.dtype
    _runs: dict[tuple[str, bool], Trajectory] = field(default_factory=dict, init=False)

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
    def start(self) -> dict[str, Tensor]:
        """module -> (r,), as the subject gets it, float64."""
        return self.cast(self.case.start)

    @property
    def judgeable(self) -> bool:
        """Whether the case survives the cast to the subject's dtype, and is not too long for a bound in it."""
        bounded = all(math.isfinite(gamma(sum(V.shape) + 4, self.dtype)) for V in self.basis.values())
        return bounded and all(bool(g.isfinite().all()) for step in self.gradients for g in step.values())

    @property
    def max_norm(self) -> float | None:
        """The limit of the clip; None if the loop has none."""
        return self.case.max_norm if self.setting.clip else None

    def fresh(
        self, intervention: Intervention, *, max_norm: float | None, basis: Mapping[str, Tensor] | None = None
    ) -> Stepper:
        """A new loop at the start of the case."""
        made = self.factory(
            {name: p.to(self.dtype).clone() for name, p in self.start.items()},
            {name: V.to(self.dtype).clone() for name, V in (self.basis if basis is None else basis).items()},
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

    def advance(self, stepper: Stepper, gradients: list[dict[str, Tensor]]) -> Trajectory:
        """Steps through the gradients and keeps a copy of what each step showed."""
        shown = [self._step(stepper, g) for g in gradients]
        deployed, quarantine, fed = ([step[i] for step in shown] for i in range(3))
        zeros = {name: torch.zeros_like(p) for name, p in self.start.items()}
        return Trajectory(
            deployed=Path.of(self.start, deployed), quarantine=Path.of(zeros, quarantine),
            fed=None if None in fed else fed,
        )  # fmt: skip

    def _step(self, stepper: Stepper, g: dict[str, Tensor]) -> tuple[Any, ...]:
        returned = stepper.step({name: t.to(self.dtype).clone() for name, t in g.items()})
        if not isinstance(returned, tuple) or len(returned) not in (2, 4):
            raise SubjectContractError(
                "A step must return (deployed, quarantine), or with their gradients as two more mappings, "
                f"not {type(returned).__name__}."
            )
        deployed, quarantine, *gradients = returned
        shown = [_copied_gradients(part) for part in gradients if part is not None]
        fed = tuple(shown) if len(shown) == 2 else None
        return _copied(deployed, g, "deployed"), _copied(quarantine, g, "quarantine"), fed

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
    def steps_clipped(self) -> int:
        """How often the gradient was longer than the limit."""
        return 0 if self.max_norm is None else sum(norm > self.max_norm for norm in self.norms)

    @cached_property
    def removed_something(self) -> int:
        """In how many steps the rule removes anything from the gradient."""
        V, gate = self.basis, self.setting.rule.gate
        return sum(any(bool(gated(V[name] @ t, gate).any()) for name, t in g.items()) for g in self.gradients)

    @cached_property
    def width(self) -> float:
        """The longest sum inside a step, r + k + 8, times the most that |V|^T |V| spreads an entry."""
        spreads = {name: float((V.abs().T @ V.abs()).sum(dim=1).max()) for name, V in self.basis.items()}
        return max((sum(V.shape) + 8) * max(1.0, spreads[name]) for name, V in self.basis.items())

    def reference_run(self, intervention: Intervention) -> list[Any]:
        """The specification's states after each step, in float64 on the same (cast) gradients."""
        optimizer = self.setting.reference
        assert optimizer is not None, "only called for settings that name their reference"
        routing = Routing(
            optimizer=optimizer, intervention=intervention, space=self.setting.space,
            clip=self.setting.clip or "before", max_norm=self.max_norm, rule=self.setting.rule,
        )  # fmt: skip
        state, states = initial(routing, self.start), []
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


def _copied_gradients(part: Mapping[str, Tensor | None]) -> Gradients:
    return {name: None if g is None else g.detach().double().clone() for name, g in part.items()}
