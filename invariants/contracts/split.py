"""What a split function takes and returns, and what a setting says of it."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from invariants.contracts.claims import Claims
from reference import MemorylessGate, SplitRule

SplitFunction = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(g (r,), V (k, r)) -> (kept (r,), removed (r,))"""


@dataclass(frozen=True, kw_only=True)
class SplitSetting:
    """What a split function does, in the vocabulary of the theorems."""

    gate: MemorylessGate = "one_sided"
    overshoot: float = 1.0
    preserve_magnitude: bool = False
    subtracts_stored: bool = False
    """`kept` is g minus the stored, rounded `removed`: conservation then obeys a tighter bound."""
    claims: Claims = None

    @property
    def rule(self) -> SplitRule:
        """The three numbers that decide what is removed."""
        return SplitRule(gate=self.gate, overshoot=self.overshoot, preserve_magnitude=self.preserve_magnitude)

    @property
    def label(self) -> str:
        """How reports call this setting."""
        return label_of(self.rule)


def label_of(rule: SplitRule) -> str:
    """A rule in words; what is at its default is left out."""
    extras = [f"overshoot {rule.overshoot:g}"] if rule.overshoot != 1 else []
    extras += ["preserve magnitude"] if rule.preserve_magnitude else []
    return ", ".join([rule.gate, *extras])
