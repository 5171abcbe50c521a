"""The correct optimizers, what each of them does not have, and what pretends to be one of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from invariants.museum.descent import Descent, Signs
from invariants.museum.fault import FAULTS, Cell, Fault
from invariants.museum.properties import PROPERTIES, cells
from invariants.optimizers import Candidate
from invariants.optimizers.loop import PointLoop
from invariants.verdict import Verdict

HALL = "optimizer"


@dataclass(frozen=True, eq=False, kw_only=True)
class Exemplar:
    """A correct optimizer.

    kwargs: with which it is made.
    lacks: the properties that an optimizer of this kind does not have, each with the reason; it has all others.
    """

    name: str
    make: type[Descent]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    lacks: Mapping[str, str] = field(default_factory=dict)

    @property
    def candidate(self) -> Candidate:
        """As it is measured."""
        return Candidate(name=self.name, make=self.make, kwargs=self.kwargs)

    def cells(self, seed: int) -> dict[str, Cell]:
        """What every property says of it; of those that it lacks, what holds all the same."""
        found = cells(self.candidate, PointLoop, seed)
        unexpected = {
            id: Cell(Verdict.UNEXPECTEDLY_HOLDS, found[id].margin, why)
            for id, why in self.lacks.items()
            if not found[id].tripped
        }
        return {id: cell for id, cell in found.items() if id not in self.lacks} | unexpected


def by_reason(reason: str, *properties: str) -> dict[str, str]:
    """Several ids with one reason."""
    return {f"conformance.{name}": reason for name in properties}


LEAKS = ("no_update_leak@gradient", "no_displacement_leak@gradient", "refreshed_update@gradient")
SIZED = by_reason("larger gradients move it farther", "scale_free")

PLAIN = Exemplar(name="descent", make=Descent, lacks=SIZED)
HEAVY = Exemplar(
    name="descent with momentum", make=Descent, kwargs={"momentum": 0.9},
    lacks=SIZED | by_reason("momentum carries on what the last basis let through", "refreshed_update@gradient"),
)  # fmt: skip
FADED = Exemplar(
    name="descent with decay", make=Descent, kwargs={"weight_decay": 0.1},
    lacks=SIZED
    | by_reason("decay is no stronger under larger gradients", "homogeneous")
    | by_reason("decay shrinks by powers of 1 - lr * decay, which are not linear in lr", "lr_proportional")
    | by_reason("decay moves whatever has a gradient, be it zeros", "zeros_inert")
    | by_reason("decay takes back steps away from the hack, which is a step towards it", *LEAKS),
)  # fmt: skip
SIGNS = Exemplar(
    name="descent of signs", make=Signs,
    lacks=by_reason("the sign of a sum is no sum of signs", "additive", "keeps_sum@gradient")
    | by_reason("larger gradients move it just as far", "homogeneous")
    | by_reason("signs turn a vector, out of the span of the basis or towards the hack", "span@gradient", *LEAKS),
)  # fmt: skip

EXEMPLARS = (PLAIN, HEAVY, FADED, SIGNS)
"""Every property holds for one of them at least."""


@dataclass(frozen=True, eq=False, kw_only=True)
class OptimizerFault(Fault):
    """A broken optimizer, or a broken routed step around a correct one.

    like: which it pretends to be.
    loop: the routed step in displacement space.
    """

    candidate: Candidate
    like: Exemplar
    loop: type[PointLoop] = PointLoop

    @property
    def hall(self) -> str:
        return HALL

    @property
    def beside(self) -> str:
        return self.like.name

    def cells(self, seed: int) -> Mapping[str, Cell]:
        silent = {id: Cell(Verdict.NOT_APPLICABLE, None, why) for id, why in self.like.lacks.items()}
        found = cells(self.candidate, self.loop, seed, but=silent) | silent
        return {id: found[id] for id in PROPERTIES}


def broken_optimizer(
    name: str,
    *,
    caught_by: str,
    like: Exemplar = PLAIN,
    kwargs: Mapping[str, Any] | None = None,
    bug: int | None = None,
    also: Mapping[str, str] | None = None,
) -> Callable[[type[Descent]], type[Descent]]:
    """Puts an optimizer on show that pretends to be `like` another, and is made with its arguments and with kwargs."""

    def show(broken: type[Descent]) -> type[Descent]:
        candidate = Candidate(name=name, make=broken, kwargs={**like.kwargs, **(kwargs or {})})
        FAULTS.append(
            OptimizerFault(name=name, caught_by=caught_by, candidate=candidate, like=like, bug=bug, also=also or {})
        )
        return broken

    return show


def broken_step(
    name: str,
    *,
    caught_by: str,
    like: Exemplar = PLAIN,
    bug: int | None = None,
    also: Mapping[str, str] | None = None,
) -> Callable[[type[PointLoop]], type[PointLoop]]:
    """Puts a routed step on show, around a correct optimizer."""

    def show(broken: type[PointLoop]) -> type[PointLoop]:
        FAULTS.append(
            OptimizerFault(
                name=name,
                caught_by=caught_by,
                candidate=like.candidate,
                like=like,
                loop=broken,
                bug=bug,
                also=also or {},
            )
        )
        return broken

    return show
