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

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from projected_grpo import kernels
from projected_grpo.along import Along, look
from projected_grpo.kernels import ACCUMULATED, DISPLACEMENT, FED, QUARANTINE, UPDATE
from projected_grpo.norms import global_norm, trusted
from projected_grpo.split import GroupedSplit, Stack
from projected_grpo.stacks import Stacks

DRIFT_RATIO_LIMIT = 2.0
DRIFT_OPPOSITION_LIMIT = 0.35


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
    drift_ratio: how far the deployed vectors have come along V beside everywhere else; 0 if nowhere along V. Above 2
        it warns: in the experiments `spaces` and `arithmetic_spaces` that flagged all 20 runs whose deployed model
        died, and 20 of 268 that lived, of which 14 of 14 and 15 of 166 came after the limit was chosen. Before
        anything is learned off V it says little: without any direction it is about 1, after a one-sided split 1/2.
    drift_opposition: how much of what the quarantine vectors hold along V the deployed ones hold with the other sign;
        0 without a quarantine. Above .35 it warns: all of those 20 runs, and 38 of those 268.
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
    """What a step leaves behind to be looked at later: stacks (m, r) of its own, which nothing else writes into.

    Nothing is computed before it is asked for, so a step that nobody looks at pays for no statistics; but for `looks`,
    which a step has that follows one that was looked at.
    """

    split: GroupedSplit  # the one in force at the step; its modules are the first stacks of each list below
    g: Stacks  # accumulated
    fed: Stacks  # what the deployed vectors were fed, where that is no multiple of g; else empty
    norm_pre_clip: Float[Tensor, ""]
    norm_post_clip: Float[Tensor, ""]
    moved: Set[str]  # modules that had a gradient
    before: Stacks  # deployed, before the step
    start: Stacks  # deployed, before the first step
    point: Stacks  # the optimizer's own, where it keeps what is dropped; else empty
    looks: Sequence[Tensor | None]  # what the step has seen of each stack on its way, in place of looking at it later

    def read(self, deployed: Stacks, quarantine: Stacks) -> Diagnostics:
        """Computes everything, with one synchronisation; the vectors (m, r) are those after the step.

        A second one follows where a length is zero, or so large or small that its plain norm may be wrong.
        """
        home = self.norm_pre_clip.device
        norms = [self.norm_pre_clip, self.norm_post_clip, *self._ahead(deployed)]
        alone = torch.stack([norm.to(home, torch.float64) for norm in norms])
        for careful in (False, True):
            parts = self._looks(deployed, quarantine, careful=careful)
            (before, after, *ahead), *read = _read([alone, *parts])
            along = Along.of(read)
            share_of = dict(enumerate(zip(along.hackward, along.lengths, strict=True)))
            del share_of[QUARANTINE]
            if all(trusted(norm) for _, norm in share_of.values()):
                break
        shares = {place: _quotient(part, norm) for place, (part, norm) in share_of.items()}
        (axes, r), (all_axes, coordinates) = self.split.axes(self.moved), self.split.axes()
        return Diagnostics(
            cos_pre=shares[ACCUMULATED],
            cos_pre_null=math.sqrt(axes / (2 * r)) if r else 0.0,
            fired=int(along.fired),
            axes=axes,
            grad_norm_pre_clip=before,
            grad_norm_post_clip=after,
            hackward_share_gradient=shares[FED if self.fed else ACCUMULATED],
            hackward_share_update=shares[UPDATE],
            hackward_share_parameters=shares[DISPLACEMENT],
            drift_ratio=_quotient(along.along * coordinates, along.off * all_axes),
            drift_opposition=_quotient(along.product, along.squared),
            windup=_quotient(*ahead) if self.point else None,
        )

    def _looks(self, deployed: Stacks, quarantine: Stacks, *, careful: bool) -> list[Float[Tensor, " _"]]:
        """What `along.look` returns, of groups that the step has looked at on its way, and of all others now."""
        seen = () if careful or kernels.chosen() == "off" else self.looks
        groups = (
            self._looked_at(group, deployed[group], quarantine[group]) if found is None else found
            for group, found in enumerate(seen or [None] * len(self.split.V))
        )
        return look(groups, careful=careful, home=self.norm_pre_clip.device)

    def _looked_at(self, group: int, deployed: Tensor, quarantine: Tensor) -> tuple[Stacks, Tensor]:
        """The vectors of a group, and its basis."""
        vectors = [self.g[group], self.before[group] - deployed, self.start[group] - deployed, quarantine]
        return [*vectors, self.fed[group]] if self.fed else vectors, self.split.V[group]

    def _ahead(self, deployed: Stacks) -> list[Float[Tensor, ""]]:
        """How far the optimizer's point and the deployed vectors have come, over all modules, where they differ."""
        ends = (self.point, deployed) if self.point else ()
        return [global_norm(torch._foreach_sub(end, self.start)) for end in ends]


def _read(parts: Sequence[Float[Tensor, " _"]]) -> list[list[float]]:
    """The numbers of each, all read together, where the first is."""
    read = torch.cat([part.to(parts[0].device) for part in parts]).tolist()
    ends = [0, *accumulate(len(part) for part in parts)]
    return [read[start:end] for start, end in pairwise(ends)]


def _quotient(a: float, b: float) -> float:
    """a / b, and 0 where a is 0."""
    if a == 0:
        return 0.0
    return a / b if b else a * math.inf


def hackward_share(stacks: list[Stack]) -> Float[Tensor, ""]:
    """sqrt(Σ ‖relu(V x)‖² / Σ ‖x‖²) over stacks of x (m, r) and V x (m, k); 0 where x is zero."""
    length = global_norm(stack.vectors for stack in stacks)
    hackward = global_norm(torch.relu(stack.coefficients) for stack in stacks)
    return torch.where(length == 0, torch.zeros_like(length), hackward / length)
