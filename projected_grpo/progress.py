"""Where training stands between two steps, and how the parts of the point are written to the vectors.

In gradient space the base optimizer moves the vectors themselves. Elsewhere it moves one point, and after its step

    update:        deployed -= kept(-Δ),           quarantine -= removed(-Δ),    Δ the change of the point
    displacement:  deployed = start - kept(-T),    quarantine = -removed(-T),    T the point minus the start

under route; under erase the quarantine stays as it is, and the point goes on from where it is, or forgets a part of
what was dropped (windup):

    point = deployed + retained (point - deployed)
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from projected_grpo import kernels
from projected_grpo.posthoc import combined
from projected_grpo.routing import Routing
from projected_grpo.split import GroupedSplit, fastest_split
from projected_grpo.stacks import Layout, Stacks
from projected_grpo.vector_set import VectorSet
from projected_grpo.vectors import VectorPair

Values = dict[str, Tensor]  # module → (r,)


@dataclass(frozen=True)
class Progress:
    """Stacks (m, r) in the order of a layout; all but `start` are empty where the base optimizer moves the vectors."""

    start: Stacks  # the deployed vectors before the first step
    point: Stacks  # the base optimizer's own
    deployed: Stacks  # as the last step wrote them
    quarantine: Stacks  # as the last step wrote them; empty under erase
    memory: Values = field(default_factory=dict)  # module → (k,): of the predictable gate; empty before it saw anything

    def moved_to(
        self, point: Stacks, split: GroupedSplit, routing: Routing, g: Stacks = ()
    ) -> tuple["Progress", list[Tensor | None]]:
        """Splits how far the point has come; writes nothing yet.

        Arguments:
            point: where the base optimizer has moved it.
            g: the accumulated gradients, if diagnostics will look at the step. What the compiled loops see of each
                stack while they have V at hand is returned; None for those that they don't serve.
        """
        means = split.means(self.memory)
        parts = [
            self._part_moved_to(to, group, split, routing, None if mean is None else mean > 0, g)
            for group, (to, mean) in enumerate(zip_longest(point, means))
        ]
        coefficients = [part.coefficients for part in parts if part.coefficients is not None]
        memory = split.remembered(self.memory, means, coefficients)
        deployed = [part.deployed for part in parts]
        quarantine = [part.quarantine for part in parts if part.quarantine is not None]
        if routing.retained < 1:
            point = torch._foreach_lerp(deployed, point, routing.retained)
        looks = [part.look for part in parts[: len(split.V)]]
        return Progress(self.start, point, deployed, quarantine, memory), looks

    def _part_moved_to(
        self, point: Tensor, group: int, split: GroupedSplit, routing: Routing, open: Tensor | None, g: Stacks
    ) -> "_Moved":
        by_update, routes, rule = routing.space == "update", bool(self.quarantine), split.rule
        origin, base = (self.point, self.deployed) if by_update else (self.start, self.start)
        held = self.quarantine[group] if by_update and routes else None
        V = split.V[group] if group < len(split.V) else None
        look_at = (g[group], self.deployed[group], self.start[group]) if g and routes else None
        stacks = [origin[group], point, base[group], *([] if held is None else [held]), *(look_at or ())]
        if V is not None and not rule.preserve_magnitude and kernels.serve(V, stacks):
            return _Moved(*kernels.move(
                origin[group], point, V, base=base[group], held=held, routes=routes,
                one_sided=rule.gate == "one_sided", strength=rule.strength, open=open, look_at=look_at,
            ))  # fmt: skip
        # Each result takes the place of what it is made of: new memory for each would cost as much as the arithmetic.
        came = origin[group] - point
        if V is None:
            kept, removed, c = came, torch.zeros_like(came), None
        else:
            kept, removed, c = fastest_split(came, V, rule, open=open, in_place=True)
        deployed = torch.sub(base[group], kept, out=kept)
        if not routes:
            return _Moved(deployed, None, c, None)
        quarantine = removed.neg_() if held is None else torch.sub(held, removed, out=removed)
        return _Moved(deployed, quarantine, c, None)

    def forgetting(self) -> "Progress":
        """Where training stands when its axes are replaced by others, of which nothing has been seen."""
        return replace(self, memory={})

    def changed(self, deployed: VectorSet, quarantine: VectorSet) -> Bool[Tensor, ""]:
        """Whether vectors differ from what the last step wrote, or are NaN.

        Raises ShapeMismatchError, DTypeMismatchError or DeviceMismatchError for one that was cast or moved.
        """
        scratch = [torch.empty_like(stack) for stack in self.deployed]
        # Asked of each dtype by itself: in a coarser one a small difference is none.
        alike: defaultdict[tuple[torch.dtype, torch.device], list[Tensor]] = defaultdict(list)
        for written, vectors in ((self.deployed, deployed), (self.quarantine, quarantine)):
            for difference in vectors.differences(written, scratch) if written else ():
                alike[difference.dtype, difference.device].append(difference)
        differ = [torch.stack(same).ne(0).any() for same in alike.values()]
        if len(differ) > 1:
            return torch.stack([each.to(differ[0].device) for each in differ]).any()
        return differ[0]

    def named(self, layout: Layout) -> dict[str, Values]:
        """The parts by name, every vector (r,) with a memory of its own."""
        stacks = {"start": self.start, "point": self.point, "deployed": self.deployed, "quarantine": self.quarantine}
        rows = {part: layout.rows(each) if each else {} for part, each in stacks.items()}
        copies = {part: {name: row.clone() for name, row in values.items()} for part, values in rows.items()}
        return {**copies, "memory": {name: means.clone() for name, means in self.memory.items()}}


class _Moved(NamedTuple):
    """The parts of one stack (m, r)."""

    deployed: Tensor
    quarantine: Tensor | None  # None under erase
    coefficients: Tensor | None  # (m, k) of the split; None where there are no rows
    look: Tensor | None  # what `along.look` would say


def stacked(layout: Layout, named: Mapping[str, Mapping[str, Tensor]]) -> Progress:
    """The progress whose `named` this is."""
    parts = {part: layout.stack(values) if values else [] for part, values in named.items() if part != "memory"}
    return Progress(**parts, memory=dict(named["memory"]))


def at_the_start(vectors: Mapping[str, VectorPair], layout: Layout, routing: Routing) -> Progress:
    """Before the first step; training starts where the vectors are now."""
    start = layout.stack({name: pair.deployed.detach() for name, pair in vectors.items()})
    if not routing.moves_the_point:
        return Progress(start, [], [], [])
    if routing.intervention == "erase":
        return Progress(start, start, start, [])
    quarantine = layout.stack(
        {n: pair.quarantine.detach() for n, pair in vectors.items() if pair.quarantine is not None}
    )
    return Progress(start, layout.stack({n: combined(pair) for n, pair in vectors.items()}), start, quarantine)
