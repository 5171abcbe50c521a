"""Where training stands between two steps, and how the parts of the point are written to the vectors.

In gradient space the base optimizer moves the vectors themselves. Elsewhere it moves one point, and after its step

    update:        deployed -= kept(-Δ),           quarantine -= removed(-Δ),    Δ the change of the point
    displacement:  deployed = start - kept(-T),    quarantine = -removed(-T),    T the point minus the start

under route; under erase the quarantine stays as it is, and the point goes on from where it is, or forgets a part of
what was dropped (windup):

    point = deployed + retained (point - deployed)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from projected_grpo.errors import OutsideWriteError
from projected_grpo.norms import global_norm
from projected_grpo.posthoc import combined
from projected_grpo.routing import Routing
from projected_grpo.split import GroupedSplit
from projected_grpo.vectors import VectorPair

Values = dict[str, Tensor]  # module → (r,)


@dataclass(frozen=True)
class Progress:
    """All but `start` are empty where the base optimizer moves the vectors themselves."""

    start: Values  # the deployed vectors before the first step
    point: Values  # the base optimizer's own
    deployed: Values  # as the last step wrote them
    quarantine: Values  # as the last step wrote them; empty under erase
    memory: Values = field(default_factory=dict)  # module → (k,): of the predictable gate; empty before it saw anything

    def moved_to(self, point: Values, split: GroupedSplit, routing: Routing) -> "Progress":
        """Splits how far the point has come; writes nothing yet."""
        by_update = routing.space == "update"
        parts = split(_difference(self.point if by_update else self.start, point), self.memory)
        deployed = _difference(self.deployed if by_update else self.start, parts.kept)
        if routing.retained < 1:
            point = _between(deployed, point, routing.retained)
        if by_update:
            quarantine = _difference(self.quarantine, parts.removed)
        else:
            quarantine = _negative({name: parts.removed[name] for name in self.quarantine})
        return Progress(self.start, point, deployed, quarantine, parts.memory)

    def forgetting(self) -> "Progress":
        """Where training stands when its axes are replaced by others, of which nothing has been seen."""
        return replace(self, memory={})

    def check_untouched(self, vectors: Mapping[str, VectorPair]) -> None:
        """Refuses vectors that the next step would overwrite although they aren't what the last one wrote.

        Raises:
            OutsideWriteError: names the first such vector.
        """
        for role, written in (("deployed", self.deployed), ("quarantine", self.quarantine)):
            name = _first_change(written, {name: getattr(vectors[name], role) for name in written})
            if name is not None:
                raise OutsideWriteError(
                    f"{name}: something other than the optimizer has changed, cast or moved the {role} vector since "
                    "its last step or the state that was loaded, and the next step would undo that; load the vectors "
                    "and the optimizer's state of one checkpoint, or build a new optimizer on the vectors as they are."
                )


def at_the_start(vectors: Mapping[str, VectorPair], routing: Routing) -> Progress:
    """Before the first step; training starts where the vectors are now."""
    start = copied({name: pair.deployed for name, pair in vectors.items()})
    if not routing.moves_the_point:
        return Progress(start, {}, {}, {})
    if routing.intervention == "erase":
        return Progress(start, start, start, {})
    quarantine = copied({name: pair.quarantine for name, pair in vectors.items() if pair.quarantine is not None})
    return Progress(start, {name: combined(pair) for name, pair in vectors.items()}, start, quarantine)


def copied(vectors: Mapping[str, Tensor]) -> Values:
    """The values (r,) of vectors as they are now."""
    return {name: vector.detach().clone() for name, vector in vectors.items()}


def write(vectors: Mapping[str, nn.Parameter], values: Values) -> None:
    """Writes values (r,) to the vectors of the same names."""
    if values:
        torch._foreach_copy_([vectors[name] for name in values], list(values.values()))


def _first_change(written: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> str | None:
    """The first name whose values (r,) differ, NaN being NaN; one synchronisation where none does."""
    for name, value in written.items():
        now = present[name]
        if (now.shape, now.dtype, now.device) != (value.shape, value.dtype, value.device):
            return name
    if not written or not bool(global_norm(_difference(written, present).values())):
        return None
    alike = (torch.allclose(value, present[name], rtol=0, atol=0, equal_nan=True) for name, value in written.items())
    return next((name for name, same in zip(written, alike, strict=True) if not same), None)


def _difference(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Values:
    """a - b, module by module of a."""
    return dict(zip(a, torch._foreach_sub(list(a.values()), [b[name] for name in a]), strict=True)) if a else {}


def _negative(a: Mapping[str, Tensor]) -> Values:
    return dict(zip(a, torch._foreach_neg(list(a.values())), strict=True)) if a else {}


def _between(a: Mapping[str, Tensor], b: Mapping[str, Tensor], share: float) -> Values:
    """a + share (b - a), module by module; a itself at 0."""
    return dict(zip(a, torch._foreach_lerp(list(a.values()), [b[name] for name in a], share), strict=True))
