"""What an optimizer is, measured on small probe vectors and never read off its name.

With x_t(p, g) the trajectory from start p on gradients g:

    linear       x(0, a) + x(p, b) = x(p, a + b)           one step is linear in (gradient, parameter, state) jointly
    isotropic    x(Q p, Q g) = Q x(p, g), Q orthogonal     with linear: an update is a weighted sum of whole gradients
    separable    x of one parameter is the same bits whatever gradients the others get, or none
    nonnegative  the weights of past gradients in -update are >= 0, and without gradients nothing moves (no decay)

The first three are what theorems about two sets with separate states need, the fourth what makes a sum of updates
non-hack-ward when each gradient is. The idea of measuring instead of declaring is from lineax's operator tags.
"""

import copy
import inspect
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from projected_grpo.errors import UnmeasurableOptimizerError

STEPS = 100  # long enough for what switches on late: lookahead, warm-up, a rectified variance
LENGTH = 24  # of a probe vector; the first LENGTH gradients of the impulse probe are the unit vectors
SEED = 20
# Trajectories of 100 steps in float64 agree to about 1e-13 where the identity holds, and differ in the second digit
# where it doesn't; anything between is worth a look, and counted as not holding.
TOLERANCE = 1e-9

Gradients = Sequence[Tensor | None]  # one (LENGTH,) or None per step


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured; every property is False for an optimizer that didn't move at all."""

    moved: bool = False
    linear: bool = False
    isotropic: bool = False
    separable: bool = False
    nonnegative: bool = False
    residuals: MappingProxyType[str, float] = field(default_factory=lambda: MappingProxyType({}))
    problem: str | None = None  # why nothing could be measured


def measure(base: Optimizer, parameters: Collection[int] | None = None) -> Measured:
    """Runs a twin of `base` on probe vectors; base, its parameters and the global random state stay as they are.

    Arguments:
        base: any constructed optimizer.
        parameters: ids of the parameters that matter; groups that hold none of them are left out. None: all matter.

    Raises:
        UnmeasurableOptimizerError: the twin could not be made or run.
    """
    try:
        return _measure(_Laboratory(base, parameters))
    except Exception as error:  # whatever a foreign optimizer raises
        raise UnmeasurableOptimizerError(
            f"{type(base).__name__} could not be run on probe vectors ({type(error).__name__}: {error}); "
            "what it guarantees is unknown."
        ) from error


class MeasureOnce:
    """Measures once, and again when hyperparameters other than the learning rate have changed, or nothing moved yet."""

    def __init__(self) -> None:
        self._key: str | None = None
        self._measured = Measured()

    def of(self, base: Optimizer, parameters: Collection[int] | None = None) -> Measured:
        """Like `measure`; an optimizer that can't be measured counts as having none of the properties."""
        key = repr([_options(group) for group in base.param_groups])
        if key != self._key or not self._measured.moved:
            try:
                self._measured = measure(base, parameters)
            except UnmeasurableOptimizerError as error:
                self._measured = Measured(problem=str(error))
            self._key = key
        return self._measured


def _options(group: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key not in ("params", "lr", "initial_lr", "param_names")}


class _Laboratory:
    """Makes twins of one optimizer and runs them on given starts and gradients."""

    def __init__(self, base: Optimizer, parameters: Collection[int] | None) -> None:
        self.base = base
        held = [g for g in base.param_groups if parameters is None or any(id(p) in parameters for p in g["params"])]
        self.groups = held or base.param_groups
        self.device = self.groups[0]["params"][0].device

    def twin(self, probes: list[nn.Parameter]) -> Optimizer:
        """An optimizer like the base, fresh, on the probes, two in each group."""
        groups = []
        for i, group in enumerate(self.groups):
            options = {
                key: copy.deepcopy(value) for key, value in group.items() if key not in ("params", "param_names")
            }
            if "initial_lr" in options:  # a schedule may stand at zero just now
                options["lr"] = copy.deepcopy(options["initial_lr"])
            groups.append({**options, "params": probes[2 * i : 2 * i + 2]})
        twin: Optimizer = object.__new__(type(self.base))
        memo = {id(p): probes[0] for group in self.base.param_groups for p in group["params"]}
        for key, value in vars(self.base).items():
            if key.endswith("_hooks"):
                twin.__dict__[key] = OrderedDict()
            elif key not in ("state", "param_groups", "step"):  # an instance's own step is a scheduler's wrapper
                twin.__dict__[key] = copy.deepcopy(value, memo)
        twin.param_groups = groups
        twin.state = self._initial_state(groups)
        return twin

    def _initial_state(self, groups: list[dict[str, Any]]) -> Any:
        """What the constructor puts into the state, as Adagrad's does; nothing if it can't be called like this."""
        accepted = inspect.signature(type(self.base)).parameters
        defaults = {key: value for key, value in self.base.defaults.items() if key in accepted}
        try:
            return type(self.base)([dict(group) for group in groups], **defaults).state
        except Exception:
            return defaultdict(dict)

    def run(self, starts: Sequence[Tensor], gradients: Sequence[Gradients]) -> Tensor:
        """Trajectories of all probes, (probes, steps + 1, LENGTH)."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []), torch.no_grad():
            torch.manual_seed(SEED)
            probes = [nn.Parameter(start.clone()) for start in starts]
            optimizer = self.twin(probes)
            path = [torch.stack(list(starts))]
            for step in range(len(gradients[0])):
                for probe, sequence in zip(probes, gradients, strict=True):
                    gradient = sequence[step]
                    probe.grad = None if gradient is None else gradient.clone()
                optimizer.step()
                path.append(torch.stack([probe.detach().clone() for probe in probes]))
            return torch.stack(path, dim=1)


def _measure(laboratory: _Laboratory) -> Measured:
    generator = torch.Generator().manual_seed(SEED)
    count = 2 * len(laboratory.groups)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(laboratory.device)

    # Sizes vary from step to step, or whatever depends on them (clipping, warm-up of a norm) would not show.
    a, b = (normal(count, STEPS, LENGTH) * 10 ** normal(1, STEPS, 1) for _ in range(2))
    zero, p = torch.zeros(count, LENGTH, dtype=torch.float64, device=laboratory.device), normal(count, LENGTH)
    Q = torch.linalg.qr(normal(LENGTH, LENGTH))[0]

    def run(starts: Tensor, g: Tensor) -> Tensor:
        return laboratory.run(list(starts), [list(sequence) for sequence in g])

    from_zero, from_p, both = run(zero, a), run(p, b), run(p, a + b)
    rotated = run(p @ Q.T, b @ Q.T)
    residuals = {
        "linear": _relative(from_zero + from_p - both, from_zero, from_p),
        "isotropic": _relative(from_p @ Q.T - rotated, rotated),
        "separable": _coupling(laboratory, p, a, b),
        "nonnegative": _worst_weight(laboratory, p, count),
    }
    moved = bool((from_zero != 0).any())
    small = {name: moved and residual <= TOLERANCE for name, residual in residuals.items()}
    return Measured(
        moved=moved,
        linear=small["linear"],
        isotropic=small["isotropic"],
        separable=moved and residuals["separable"] == 0,
        # Weights describe an optimizer only where its update is a weighted sum of gradients.
        nonnegative=small["nonnegative"] and small["linear"] and small["isotropic"],
        residuals=MappingProxyType(residuals),
    )


def _relative(difference: Tensor, *of: Tensor) -> float:
    """Largest entry of a difference, relative to the largest of what it is a difference of; NaN counts as infinite."""
    scale = max(float(x.abs().max()) for x in of)
    residual = float(difference.abs().max()) / scale if scale > 0 else 0.0
    return residual if residual == residual else float("inf")


def _coupling(laboratory: _Laboratory, p: Tensor, a: Tensor, b: Tensor) -> float:
    """How far the first probe moves away when the others get other gradients, or none; 0 only for equal bits."""
    rest = len(p) - 1
    variants: list[list[Gradients]] = [
        [[None] * STEPS for _ in range(rest)],
        [list(sequence) for sequence in a[1:]],
        [list(1e3 * sequence) for sequence in b[1:]],
    ]
    paths = [laboratory.run(list(p), [list(a[0]), *others])[0] for others in variants]
    return max(_relative(path - paths[0], paths[0]) for path in paths)


def _worst_weight(laboratory: _Laboratory, p: Tensor, count: int) -> float:
    """Size of the most negative weight of a past gradient in -update, or of the motion without any gradient.

    The gradient of step s is the s-th unit vector (then zeros), so coordinate s of -update at step t is the weight that
    the gradient of step s has there. Relative to the largest weight, and to the start.
    """
    impulses = torch.zeros(STEPS, LENGTH, dtype=p.dtype, device=p.device)
    impulses[:LENGTH] = torch.eye(LENGTH, dtype=p.dtype, device=p.device)
    zeros = torch.zeros_like(impulses)
    response = laboratory.run(list(torch.zeros_like(p)), [list(impulses)] * count)
    weights = response[:, :-1] - response[:, 1:]  # (probes, steps, LENGTH)
    still = laboratory.run(list(p), [list(zeros)] * count)
    return max(_relative(weights.clamp(max=0), weights), _relative(still - still[:, :1], still))
