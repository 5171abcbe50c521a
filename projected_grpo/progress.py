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
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from projected_grpo import kernels
from projected_grpo.kernels.memory import move
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

    def moved(
        self, deployed: VectorSet, quarantine: VectorSet, split: GroupedSplit, routing: Routing, g: Stacks = ()
    ) -> tuple["Progress", list[Tensor | None]]:
        """Splits how far the point has come, which is found in the deployed vectors, and writes the parts to both.

        Under route the new point may be kept where the old one was, so this progress is spent.

        Arguments:
            g: the accumulated gradients, if diagnostics will look at the step. What the compiled loops then see of each
                stack under route, while they have V at hand, is returned; None where they see nothing.
        """
        move = _Move(self, deployed, quarantine, split, routing.space == "update", g)
        means = split.means(self.memory)
        opens = [None if mean is None else mean > 0 for mean in means] + [None] * (len(self.start) - len(means))
        parts = [move.of(group, open) for group, open in enumerate(opens)]
        coefficients = [part.coefficients for part in parts if part.coefficients is not None]
        memory = split.remembered(self.memory, means, coefficients)
        deployed.write([None if part.is_written else part.deployed for part in parts])
        quarantine.write([None if part.is_written else part.quarantine for part in parts])
        written, point = [part.deployed for part in parts], [part.point for part in parts]
        if routing.retained < 1:
            point = list(torch._foreach_lerp(written, point, routing.retained))
        held = [part.quarantine for part in parts if part.quarantine is not None]
        return Progress(self.start, point, written, held, memory), [part.look for part in parts[: len(split.V)]]

    def forgetting(self) -> "Progress":
        """Where training stands when its axes are replaced by others, of which nothing has been seen."""
        return replace(self, memory={})

    def changed(self, deployed: VectorSet, quarantine: VectorSet) -> bool | Bool[Tensor, ""]:
        """Whether vectors differ from what the last step wrote, or are NaN; not read yet where torch compares.

        Raises ShapeMismatchError, DTypeMismatchError or DeviceMismatchError for one that was cast or moved.
        """
        scratch = [torch.empty_like(stack) for stack in self.deployed]
        known = False
        # Asked of each dtype by itself: in a coarser one a small difference is none.
        alike: defaultdict[tuple[torch.dtype, torch.device], list[Tensor]] = defaultdict(list)
        for written, vectors in ((self.deployed, deployed), (self.quarantine, quarantine)):
            for difference in vectors.differences(written, scratch) if written else ():
                if isinstance(difference, bool):
                    known |= difference
                else:
                    alike[difference.dtype, difference.device].append(difference)
        differ = [torch.stack(same).ne(0).any() for same in alike.values()]
        if known or not differ:
            return known
        return differ[0] if len(differ) == 1 else torch.stack([each.to(differ[0].device) for each in differ]).any()

    def named(self, layout: Layout) -> dict[str, Values]:
        """The parts by name, every vector (r,) with a memory of its own."""
        stacks = {"start": self.start, "point": self.point, "deployed": self.deployed, "quarantine": self.quarantine}
        rows = {part: layout.rows(each) if each else {} for part, each in stacks.items()}
        copies = {part: {name: row.clone() for name, row in values.items()} for part, values in rows.items()}
        return {**copies, "memory": {name: means.clone() for name, means in self.memory.items()}}


class _Moved(NamedTuple):
    """Where one stack (m, r) has come."""

    point: Tensor
    deployed: Tensor
    quarantine: Tensor | None  # None under erase
    coefficients: Tensor | None  # (m, k) of the split; None where there are no rows
    look: Tensor | None = None  # what `along.look` would say
    is_written: bool = False  # to the vectors


@dataclass(frozen=True)
class _Move:
    """How each stack of vectors is moved in one step; see `Progress.moved`."""

    before: Progress
    deployed: VectorSet
    quarantine: VectorSet
    split: GroupedSplit
    by_update: bool
    g: Stacks

    def of(self, group: int, open: Bool[Tensor, "m k"] | None) -> _Moved:
        """open: which axes the predictable gate has open."""
        return self._by_loop(group, open) or self._by_torch(group, open)

    @property
    def _routes(self) -> bool:
        return bool(self.before.quarantine)

    def _ends(self, group: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """origin, base and held: origin - point is split, then base - kept and held - removed are what is written, with
        None for zeros."""
        before = self.before
        if not self.by_update:
            return before.start[group], before.start[group], None
        return before.point[group], before.deployed[group], before.quarantine[group] if self._routes else None

    def _by_loop(self, group: int, open: Bool[Tensor, "m k"] | None) -> _Moved | None:
        """By the compiled loop, which has written to the vectors then; None where it does not serve."""
        before, rule = self.before, self.split.rule
        if group >= len(self.split.V) or rule.preserve_magnitude:
            return None
        V, (origin, base, held) = self.split.V[group], self._ends(group)
        point = [before.point[group]] if self._routes else []  # under erase the start may be the same memory
        look_at = (self.g[group], before.deployed[group], before.start[group]) if self.g and self._routes else None
        if not kernels.serve(V, [origin, base, *point, *([] if held is None else [held]), *(look_at or ())]):
            return None
        at = self.deployed.memory(group, base)
        quarantine_at = self.quarantine.memory(group, base) if self._routes else None
        if at is None or (self._routes and quarantine_at is None):
            return None
        to = point[0] if point else torch.empty_like(base)
        parts = move(
            at, quarantine_at, origin, V, base=base, held=held, point=to, one_sided=rule.gate == "one_sided",
            strength=rule.strength, open=open, look_at=look_at,
        )  # fmt: skip
        return _Moved(to, *parts, is_written=True)

    def _by_torch(self, group: int, open: Bool[Tensor, "m k"] | None) -> _Moved:
        origin, base, held = self._ends(group)
        point = self.deployed.stack_of(group)
        # Each result takes the place of what it is made of: new memory for each would cost as much as the arithmetic.
        kept = origin - point
        if group < len(self.split.V):
            kept, removed, c = fastest_split(kept, self.split.V[group], self.split.rule, open=open, in_place=True)
        else:
            removed, c = torch.zeros_like(kept), None
        deployed = torch.sub(base, kept, out=kept)
        if not self._routes:
            return _Moved(point, deployed, None, c)
        return _Moved(point, deployed, removed.neg_() if held is None else torch.sub(held, removed, out=removed), c)


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
