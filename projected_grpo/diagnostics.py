"""What a routed step did: how much of it was hack-ward, how often the gate fired, and which norm is which.

Every share is the same quantity of another vector x, over all modules that have rows in the basis:

    share(x) = sqrt(Σ ‖relu(V x)‖² / Σ ‖x‖²),    0 where x is zero

The relu comes before the sum, so that opposite coefficients don't cancel.

Two gauges warn, without labels, of what one-sided routing does to noise: relu of noise has a positive mean, so in
gradient and update space it drives the deployed and the quarantine vectors apart along V at every step, while their
sum, the model that trains, looks healthy. With d the displacement of the deployed vectors, q the quarantine vectors:

    drift_ratio       mean |V d| / mean |d - VᵀV d|        over all axes, and over all coordinates
    drift_opposition  -<V d, V q> / ‖V q‖²

Under erase outside gradient space a third number tells how far the optimizer's own point has run ahead of the model
that is seen, through what is dropped there and kept here:

    windup            ‖point - start‖ / ‖d‖
"""

import copy
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from projected_grpo.norms import global_norm
from projected_grpo.split import GroupedSplit, SplitRule, Stack

DRIFT_RATIO_LIMIT = 0.5
DRIFT_OPPOSITION_LIMIT = 0.35
WHOLE_COMPONENT = SplitRule(gate="no_gate")


@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """Of the last step; every field is None before the first.

    cos_pre: share of the accumulated gradient g, before clip and split (neither a common factor nor the order changes
        it). In every space, and under none too, where V is only looked at.
    cos_pre_null: sqrt(Σk / 2Σr), what cos_pre is for isotropic gradients; k counts non-zero rows. A first
        approximation: real gradients are not isotropic, and the honest null permutes them, or draws V at random.
    fired, axes: of Σk axes, those on which a descent step along g moves hack-ward (c > 0).
    grad_norm_pre_clip: norm of the accumulated gradients of all deployed vectors and of the parameters that are not
        routed. After a clip of the caller's own it is the norm that that left.
    grad_norm_post_clip: norm of everything that was fed: deployed, quarantine, and not routed. At most max_norm under
        before and joint.
    hackward_share_gradient: share of what the deployed vectors were fed. Under one_sided it is 0 by construction in
        gradient space, and evidence of nothing; outside gradient space it is the unsplit gradient's.
    hackward_share_update: share of minus the step's change of the deployed vectors.
    hackward_share_parameters: share of minus (deployed - start), which is what would be shipped.
    drift_ratio: how far the deployed vectors have come along V beside everywhere else; 0 if nowhere along V. Above .5
        it warns: on a tiny testbed, which is not part of this repository, that flagged 27 of 33 runs that later
        died, and 2 of 53 that did not. Before anything is learned off V it says little: without any direction it
        is about 1, after a one-sided split 1/2.
    drift_opposition: how much of what the quarantine vectors hold along V the deployed ones hold with the other sign;
        0 without a quarantine. Above .35 it warns: 29 of those 33 runs, and 6 of those 53.
    windup: how far the optimizer's point is from the start, beside how far the deployed vectors are; 1 where it is
        where they are. None where nothing is dropped that the point keeps: only erase outside gradient space has it.
    """

    cos_pre: float | None = None
    cos_pre_null: float | None = None
    fired: int | None = None
    axes: int | None = None
    grad_norm_pre_clip: float | None = None
    grad_norm_post_clip: float | None = None
    hackward_share_gradient: float | None = None
    hackward_share_update: float | None = None
    hackward_share_parameters: float | None = None
    drift_ratio: float | None = None
    drift_opposition: float | None = None
    windup: float | None = None

    @property
    def warnings(self) -> list[str]:
        """A sentence for each drift gauge that is above its limit, or no number any more."""
        told = [
            f"{name} is {value}: the vectors are no longer finite."
            for name, value in (("drift_ratio", self.drift_ratio), ("drift_opposition", self.drift_opposition))
            if value is not None and math.isnan(value)
        ]
        if self.drift_ratio is not None and self.drift_ratio > DRIFT_RATIO_LIMIT:
            told.append(
                f"drift_ratio is {self.drift_ratio:.2f}, above {DRIFT_RATIO_LIMIT}: for so few axes the "
                "deployed vectors have come far along the basis, so it may be the noise that drives them."
            )
        if self.drift_opposition is not None and self.drift_opposition > DRIFT_OPPOSITION_LIMIT:
            told.append(
                f"drift_opposition is {self.drift_opposition:.2f}, above {DRIFT_OPPOSITION_LIMIT}: the deployed and "
                "the quarantine vectors drift apart along the basis; space='displacement' does not let them."
            )
        return told

    @property
    def fired_share(self) -> float | None:
        """The share of axes that fired."""
        return self.fired / self.axes if self.fired is not None and self.axes else None


@dataclass(frozen=True)
class StepRecord:
    """What a step leaves behind to be looked at later: tensors of its own, which nothing else writes into."""

    accumulated: list[Stack]  # g and V g
    fed: list[Stack]  # what the deployed vectors were fed, and its coefficients
    norm_pre_clip: Float[Tensor, ""]
    norm_post_clip: Float[Tensor, ""]
    moved: Collection[str]  # modules that had a gradient
    before: Mapping[str, Tensor]  # module → deployed (r,), before the step
    start: Mapping[str, Tensor]  # module → deployed (r,), before the first step
    point: Mapping[str, Tensor]  # module → the optimizer's own (r,), where it keeps what is dropped; else empty
    split: GroupedSplit  # the one in force at the step
    covered: Collection[str]  # modules that have rows in its basis

    def read(self, deployed: Mapping[str, Tensor], quarantine: Mapping[str, Tensor]) -> Diagnostics:
        """Computes everything, with one synchronisation; the vectors (r,) are those after the step."""
        update = {name: self.before[name] - deployed[name] for name in deployed}
        displacement = {name: self.start[name] - deployed[name] for name in deployed}
        zero = torch.zeros((), dtype=torch.float64)
        fired = sum(((stack.coefficients > 0).sum() for stack in self.accumulated), start=zero)
        numbers = [
            hackward_share(self.accumulated),
            fired,
            self.norm_pre_clip,
            self.norm_post_clip,
            hackward_share(self.fed),
            hackward_share(self.split.project(update)),
            hackward_share(self.split.project(displacement)),
            *self._drift({name: displacement[name] for name in self.covered}, quarantine),
            self._windup(displacement),
        ]
        home = self.norm_pre_clip.device
        cos_pre, fired_axes, pre, post, *shares = torch.stack([n.to(home, torch.float64) for n in numbers]).tolist()
        axes, r = self.split.axes(self.moved)
        return Diagnostics(
            cos_pre=cos_pre,
            cos_pre_null=math.sqrt(axes / (2 * r)) if r else 0.0,
            fired=int(fired_axes),
            axes=axes,
            grad_norm_pre_clip=pre,
            grad_norm_post_clip=post,
            hackward_share_gradient=shares[0],
            hackward_share_update=shares[1],
            hackward_share_parameters=shares[2],
            drift_ratio=shares[3],
            drift_opposition=shares[4],
            windup=shares[5] if self.point else None,
        )

    def _windup(self, displacement: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """module → start - deployed (r,), so minus the displacement."""
        ahead = global_norm(p - self.start[name] for name, p in self.point.items())
        return _quotient(ahead, global_norm(displacement.values()).to(ahead.device))

    def _drift(
        self, displacement: Mapping[str, Tensor], quarantine: Mapping[str, Tensor]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Both gauges; module → start - deployed (r,), so minus the displacement."""
        whole = copy.copy(self.split)
        whole.rule = WHOLE_COMPONENT
        parts = whole(displacement)
        axes, coordinates = whole.axes(displacement)
        along = _total(stack.coefficients.abs().sum() for stack in parts.stacks)
        off = _total(kept.abs().sum(dtype=torch.float64) for kept in parts.kept.values())
        present = {name: q for name, q in quarantine.items() if name in displacement}
        facing = whole.project({name: displacement[name] for name in present})
        pairs = [(a.coefficients, b.coefficients) for a, b in zip(facing, whole.project(present), strict=True)]
        product = _total((a.double() * b.double()).sum() for a, b in pairs)
        square = _total(b.double().square().sum() for _, b in pairs)
        return _quotient(along * coordinates, off * axes), _quotient(product, square)


def _total(terms: Iterable[Tensor]) -> Float[Tensor, ""]:
    """Their sum in float64, on the device of the first."""
    all_of_them = [*terms] or [torch.zeros(())]
    home = all_of_them[0].device
    return torch.stack([term.to(home, torch.float64) for term in all_of_them]).sum()


def _quotient(a: Float[Tensor, ""], b: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """a / b, and 0 where a is 0."""
    return torch.where(a == 0, torch.zeros_like(a), a / b)


def hackward_share(stacks: list[Stack]) -> Float[Tensor, ""]:
    """sqrt(Σ ‖relu(V x)‖² / Σ ‖x‖²) over stacks of x (m, r) and V x (m, k); 0 where x is zero."""
    length = global_norm(stack.vectors for stack in stacks)
    hackward = global_norm(torch.relu(stack.coefficients) for stack in stacks)
    return torch.where(length == 0, torch.zeros_like(length), hackward / length)
