"""What an extraction takes and returns, and what a setting says of it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from invariants.contracts.claims import Claims

Loss = Callable[[], Tensor]
"""Builds the graph of one completion's loss when it is called, and returns it, a scalar."""
Floor = Literal["relative", "global"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ContrastiveProblem:
    """What a basis is to be extracted from; made fresh for every call.

    pairs: (loss of the hack completion, loss of the clean one); deployed, quarantine: module -> (r,), of which the
    losses read the sum; ablated: inside it they read the deployed vectors alone; k: the most axes that a module may
    have. An axis is kept if its singular value reaches relative_floor times the module's largest, and global_floor
    times the largest of all modules.
    """

    pairs: Sequence[tuple[Loss, Loss]]
    deployed: Mapping[str, nn.Parameter]
    quarantine: Mapping[str, nn.Parameter]
    ablated: Callable[[], AbstractContextManager[object]]
    k: int
    relative_floor: float = 0.0
    global_floor: float = 0.0


ExtractionFunction = Callable[[ContrastiveProblem], Mapping[str, Tensor]]
"""The problem -> module -> V (k', r): the first right singular vectors of the pair differences g_hack - g_clean with
k' <= k, the strongest first; zero rows may stand in for axes that are left out."""


@dataclass(frozen=True, kw_only=True)
class ExtractionSetting:
    """Which of the optional parts of an extraction there are."""

    floors: tuple[Floor, ...] = ("relative", "global")
    """The noise floors that it has; a floor that is not named is always 0 in what it is handed."""
    tie: Literal["sum"] | None = "sum"
    """How a vote that ends in a tie is decided: by the sign of the summed projection, or by a rule of its own."""
    claims: Claims = None

    @property
    def label(self) -> str:
        """How reports call this setting."""
        floors = f"{' and '.join(self.floors)} floor" if self.floors else "no floor"
        return floors if self.tie else f"{floors}, own rule for ties"
