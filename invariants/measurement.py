"""Measuring, kept apart from judging: a check returns numbers, and one place compares them with their bound."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import torch
from torch import Tensor

Events = Mapping[str, bool | int]  # "something removed" -> how often
NOTHING: Events = MappingProxyType({})


@dataclass(frozen=True)
class Measurement:
    """A residual beside the largest value that the derivation allows, and what occurred on the way.

    `occurred` counts events by name ("something was removed"); an invariant whose needed events never occurred is
    vacuous. A bound of 0 asks for equal bits. `scale` is the size of what is compared: a bound beyond it allows
    everything.
    """

    residual: float
    bound: float
    where: str = ""
    occurred: Mapping[str, int] = field(default_factory=dict)
    scale: float = math.inf
    fed: str = ""
    """What the check made of its case before it fed it, in words; nothing if it was fed as it is."""

    @property
    def margin(self) -> float:
        """residual / bound: at most 1 holds, 0 is exact. A residual that is no finite number exceeds every bound; a
        bound that is none allows every finite residual."""
        if self.residual == 0:
            return 0.0
        if not math.isfinite(self.residual) or self.bound == 0:
            return math.inf
        return self.residual / self.bound if math.isfinite(self.bound) else 0.0

    @property
    def holds(self) -> bool:
        """Whether the residual is within its bound."""
        return self.margin <= 1

    @property
    def can_fail(self) -> bool:
        """A bound that allows everything says nothing."""
        return self.bound == 0 or (math.isfinite(self.bound) and self.bound <= self.scale)


def elementwise(
    residual: Tensor,
    bound: Tensor | float,
    where: str = "",
    *,
    scale: Tensor | float = math.inf,
    occurred: Events = NOTHING,
) -> Measurement:
    """The entry whose |residual| is largest against its own bound; float64.

    residual: a number, a vector (r,), or a vector for each step (steps, r).
    bound: broadcast over the residual.
    scale: the size of what is compared, or the thing itself, whose largest entry is taken.
    """
    size_of_all = scale if isinstance(scale, float) else float(scale.abs().max()) if scale.numel() else 0.0
    events = {name: int(count) for name, count in occurred.items()}
    if not residual.any():  # exact, but the loosest bound says whether it could have been otherwise; nothing could not
        loosest = float(torch.as_tensor(bound).max()) if residual.numel() else math.inf
        return Measurement(0.0, loosest, where, events, size_of_all)
    size = residual.double().abs()
    allowed = torch.as_tensor(bound, dtype=torch.float64).expand(size.shape)
    # 0 / 0 is exact, and a bound that is no number allows everything; a residual that is none, nothing.
    ratio = (size / allowed).nan_to_num(nan=0.0, posinf=math.inf)
    if not math.isfinite(float(size.max())):
        ratio = torch.where(size.isfinite(), ratio, math.inf)
    flat = int(ratio.argmax())
    at = () if size.dim() == 0 else (flat,) if size.dim() == 1 else divmod(flat, size.shape[1])
    axes = ("step", "index")[2 - size.dim() :]
    place = ", ".join([where, *(f"{axis} {i}" for axis, i in zip(axes, at, strict=True))])
    return Measurement(float(size[at]), float(allowed[at]), place, events, size_of_all)


def same_bits(a: Tensor, b: Tensor, where: str = "", *, occurred: Events = NOTHING) -> Measurement:
    """Zero where a and b agree bit for bit up to the sign of zero, else the largest difference; bound 0."""
    if torch.equal(a, b):
        return Measurement(0.0, 0.0, where, {name: int(count) for name, count in occurred.items()})
    difference = torch.where(a == b, 0.0, (a.double() - b.double()).abs())
    return elementwise(difference, 0.0, where, occurred=occurred)


def worst(measurements: Iterable[Measurement], *, occurred: Events | None = None) -> Measurement:
    """The one with the largest margin (then the largest residual), carrying the events of all; or, where `occurred` is
    given, those: what occurred in a case occurred once, however many numbers were compared in it."""
    seen = list(measurements)
    events: Counter[str] = Counter()
    for each in [m.occurred for m in seen] if occurred is None else [occurred]:
        events.update({name: int(count) for name, count in each.items()})
    if not seen:
        return Measurement(0.0, 0.0, occurred=dict(events))
    top = max(seen, key=lambda m: (m.margin, m.residual, -m.bound))
    return replace(top, occurred=dict(events))
