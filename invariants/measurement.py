"""Measuring, kept apart from judging: a check returns numbers, and one place compares them with their bound."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


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

    @property
    def margin(self) -> float:
        """residual / bound: at most 1 holds, 0 is exact; NaN counts as infinite."""
        if math.isnan(self.residual) or math.isnan(self.bound):
            return math.inf
        if self.residual == 0:
            return 0.0
        return self.residual / self.bound if self.bound > 0 else math.inf

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
    **occurred: bool | int,
) -> Measurement:
    """The entry whose |residual| is largest against its own bound; both in float64, any one shape.

    scale is the size of what is compared, or the thing itself, whose largest entry is taken.
    """
    size_of_all = scale if isinstance(scale, float) else float(scale.abs().max()) if scale.numel() else 0.0
    events = named(occurred)
    if not residual.any():  # all zero, or empty: exact, whatever the bound
        tightest = float(torch.as_tensor(bound).min()) if residual.numel() else 0.0
        return Measurement(0.0, tightest, where, events, size_of_all)
    size = residual.double().abs().flatten()
    allowed = torch.as_tensor(bound, dtype=torch.float64).expand(residual.shape).flatten()
    ratio = torch.where(size == 0, 0.0, size / allowed)
    ratio = torch.where(size.isnan() | allowed.isnan(), math.inf, ratio)
    i = int(ratio.argmax())
    place = f"{where}, index {i}" if residual.dim() and where else where
    return Measurement(float(size[i]), float(allowed[i]), place, events, size_of_all)


def same_bits(a: Tensor, b: Tensor, where: str = "", **occurred: bool | int) -> Measurement:
    """Zero where a and b agree bit for bit up to the sign of zero, else the largest difference; bound 0."""
    if torch.equal(a, b):
        return elementwise(a.new_zeros(()), 0.0, where, **occurred)
    difference = torch.where(a == b, 0.0, (a.double() - b.double()).abs())
    return elementwise(difference, 0.0, where, **occurred)


def named(occurred: Mapping[str, bool | int]) -> dict[str, int]:
    """Events as keyword arguments give them, by their names in words."""
    return {name.replace("_", " "): int(count) for name, count in occurred.items()}


def worst(measurements: Iterable[Measurement], **occurred: bool | int) -> Measurement:
    """The one with the largest margin (then the largest residual), carrying the events of all; or, where events are
    given, those: what occurred in a case occurred once, however many numbers were compared in it."""
    seen = list(measurements)
    if not seen:
        return Measurement(0.0, 0.0, occurred=named(occurred))
    events = Counter(named(occurred))
    for measurement in () if occurred else seen:
        events.update(measurement.occurred)
    top = max(seen, key=lambda m: (m.margin, m.residual, -m.bound))
    return Measurement(top.residual, top.bound, top.where, dict(events), top.scale)
