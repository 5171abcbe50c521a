"""An extraction on one contrastive problem, beside the basis that its exactly known gradients have.

How far rounding may turn an axis: the gradients and differences that a subject works with are D + E1, its decomposition
is exact for D + E1 + E2 with |E2| <= p u |D| (LAPACK Users' Guide, section 4.9; p is "a modestly growing function" of
the size, here 4 max(pairs, r)), and a singular vector of D + E turns by at most sqrt(2) |E| / (gap - |E|), where gap is
the distance of its singular value from all others and from zero (Wedin; Stewart and Sun 1990, theorem V.4.1).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from invariants.bounds import gamma, unit_roundoff
from invariants.cases.extraction import ContrastiveModule, ExtractionCase
from invariants.contracts.extraction import ContrastiveProblem, ExtractionFunction, ExtractionSetting
from invariants.errors import SubjectContractError


@dataclass(frozen=True, eq=False)
class Exact:
    """One module's pair differences as the subject's losses have them, decomposed in float64."""

    D: Tensor  # (pairs, r)
    rows_off: Tensor  # (pairs,) how far a subject's row of D may be from it
    k: int
    dtype: torch.dtype

    @cached_property
    def decomposed(self) -> tuple[Tensor, Tensor]:
        """S (n,) and Vh (n, r)."""
        _, S, Vh = torch.linalg.svd(self.D, full_matrices=False)
        return S, Vh

    @property
    def S(self) -> Tensor:  # noqa: N802  (the field's name)
        """Singular values, (n,)."""
        return self.decomposed[0]

    @property
    def growth(self) -> int:
        """p of the bounds on decompositions."""
        return 4 * max(self.D.shape)

    @cached_property
    def off(self) -> float:
        """|E|, the arbiter's own included."""
        E1, size = float(self.rows_off.norm()), float(self.S[0])
        return E1 + self.growth * (unit_roundoff(self.dtype) * (size + E1) + unit_roundoff(torch.float64) * size)

    @cached_property
    def rank(self) -> int:
        """How many directions the pairs show; repeated pairs are equal in every bit, so that no rounding blurs it."""
        rounding = self.growth * torch.finfo(torch.float64).eps * self.S[0]
        return int((rounding < self.S).sum())

    @property
    def count(self) -> int:
        """How many axes there are without a noise floor."""
        return min(self.k, self.rank)

    @property
    def V(self) -> Tensor:  # noqa: N802  (the field's name)
        """The axes without a noise floor, with the signs that the decomposition gave them, (count, r)."""
        return self.decomposed[1][: self.count]

    @property
    def countable(self) -> bool:
        """Whether rounding cannot hide the weakest of these axes."""
        return self.below(self.count - 1) > 2 * self.off if self.count else True

    def below(self, i: int) -> float:
        """The singular value after i axes; zero after the last."""
        return float(self.S[i]) if i < len(self.S) else 0.0

    @cached_property
    def turns(self) -> Tensor:
        """How far a subject's axis may be from V up to its sign, (count,); infinite where the gap is too small."""
        u, turns = unit_roundoff(self.dtype), []
        for i in range(self.count):
            gap = float(self.S[i]) - self.below(i + 1)
            gap = min(gap, float(self.S[i - 1] - self.S[i])) if i else gap
            # |v - v'| <= sqrt(2) sin; the last term is a vector of nearly unit length, stored.
            turned = 2 * self.off / (gap - self.off) if gap > 2 * self.off else math.inf
            turns.append(turned + (self.growth + 2) * u)
        return torch.tensor(turns, dtype=torch.float64)

    def votes(self, V: Tensor, turns: Tensor | float = 0.0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Of each row of V (k, r), known to `turns`: pairs surely for it, surely against it, unsure; the summed
        projection, and how far that may be off; each (k,)."""
        projection = self.D @ V.T  # (pairs, k)
        length = self.D.norm(dim=1) + self.rows_off
        allowed = torch.as_tensor(turns, dtype=torch.float64).expand(len(V))
        off = (self.rows_off + gamma(self.D.shape[1] + 4, self.dtype) * length)[:, None] + length[:, None] * allowed
        ayes, noes = (projection > off).sum(dim=0), (projection < -off).sum(dim=0)
        return ayes, noes, len(self.D) - ayes - noes, projection.sum(dim=0), off.sum(dim=0)

    def sides(self, *, tie_by_sum: bool) -> Tensor:
        """The sign that each of V must be given, (count,): 1 or -1, and 0 where rounding may decide it."""
        ayes, noes, unsure, total, off = self.votes(self.V, self.turns)
        side = (ayes > noes + unsure).double() - (noes > ayes + unsure).double()
        tied = (ayes == noes) & (unsure == 0) & (total.abs() > off) & tie_by_sum
        return torch.where(tied, total.sign(), side)


@dataclass(frozen=True)
class ExtractionTrial:
    """An extraction on one contrastive problem."""

    function: ExtractionFunction
    _: KW_ONLY
    setting: ExtractionSetting
    case: ExtractionCase
    dtype: torch.dtype
    _runs: dict[tuple[object, ...], dict[str, Tensor]] = field(default_factory=dict, init=False)

    @property
    def judgeable(self) -> bool:
        """Its values are moderate in every dtype."""
        return True

    @cached_property
    def modules(self) -> dict[str, ContrastiveModule]:
        """As the subject gets them, float64."""
        return {name: module.to(self.dtype).to(torch.float64) for name, module in self.case.modules.items()}

    def exact_at(self, where: Mapping[str, Tensor]) -> dict[str, Exact]:
        """What the gradients are where the losses read these vectors (r,).

        A gradient of this loss takes at most six roundings and a difference one more; the eighth lets a subject leave
        out what the storage of the gradients may have made.
        """
        made = {}
        for name, module in self.modules.items():
            hack, clean = module.gradients(where[name])
            terms = (module.slopes.abs() + module.bends.abs() * where[name].abs()).sum(dim=0)  # (pairs, r)
            off = gamma(8, self.dtype) * terms.norm(dim=1)
            made[name] = Exact(hack - clean, off, self.case.k, self.dtype)
        return made

    @cached_property
    def exact(self) -> dict[str, Exact]:
        """Of the model as deployed."""
        return self.exact_at({name: module.deployed for name, module in self.modules.items()})

    @cached_property
    def exact_live(self) -> dict[str, Exact]:
        """With a quarantine that is not ablated."""
        return self.exact_at({name: module.deployed + module.quarantine for name, module in self.modules.items()})

    def handed(self, *, live: bool = False, order: Sequence[int] | None = None, swapped: bool = False,
               relative_floor: float = 0.0, global_floor: float = 0.0) -> "Handed":  # fmt: skip
        """A fresh problem; `live` gives the quarantine its values."""
        return Handed(
            {name: module.to(self.dtype) for name, module in self.modules.items()}, live=live, swapped=swapped,
            order=range(self.case.pairs) if order is None else order, k=self.case.k,
            relative_floor=relative_floor, global_floor=global_floor,
        )  # fmt: skip

    def raw(self, handed: "Handed") -> Mapping[str, Tensor]:
        """The subject's axes as it returns them, after a check of its contract."""
        returned = self.function(handed.problem)
        if not isinstance(returned, Mapping) or set(returned) != set(self.modules):
            raise SubjectContractError(
                f"extraction must return a mapping over the modules {sorted(self.modules)}; a module without axes has "
                "(0, r)."
            )
        for name, V in returned.items():
            r = len(self.modules[name].deployed)
            if not isinstance(V, Tensor) or V.dim() != 2 or V.shape[1] != r or not V.is_floating_point():
                what = f"{tuple(V.shape)} {V.dtype}" if isinstance(V, Tensor) else type(V).__name__
                raise SubjectContractError(f"extraction returned {name!r} as {what}; it must be floating, (k', {r}).")
        return returned

    def extract(self, handed: "Handed") -> dict[str, Tensor]:
        """The subject's axes, zero rows left out: module -> (k', r) float64."""
        wide = {name: V.detach().double() for name, V in self.raw(handed).items()}
        return {name: V[V.any(dim=1)].clone() for name, V in wide.items()}

    def run(self, **variation: object) -> dict[str, Tensor]:
        """`extract` on a fresh problem; remembered, since many checks look at the same run."""
        key = tuple(sorted((name, tuple(v) if isinstance(v, list) else v) for name, v in variation.items()))
        if key not in self._runs:
            self._runs[key] = self.extract(self.handed(**variation))  # type: ignore[arg-type]  # names of its arguments
        return self._runs[key]

    def sides(self, name: str) -> Tensor:
        """The signs of the exact axes under this subject's rule for ties."""
        return self.exact[name].sides(tie_by_sum=self.setting.tie == "sum")


class Handed:
    """A problem in the subject's dtype, and what there was before the subject touched it."""

    def __init__(
        self, modules: Mapping[str, ContrastiveModule], *, live: bool, order: Sequence[int], swapped: bool, k: int,
        relative_floor: float, global_floor: float,
    ) -> None:  # fmt: skip
        self.modules, self.depth = modules, 0
        self.deployed = {name: nn.Parameter(module.deployed.clone()) for name, module in modules.items()}
        self.quarantine = {
            name: nn.Parameter(module.quarantine.clone() if live else torch.zeros_like(module.quarantine))
            for name, module in modules.items()
        }
        first, second = (1, 0) if swapped else (0, 1)
        self.problem = ContrastiveProblem(
            pairs=[(partial(self.loss, first, j), partial(self.loss, second, j)) for j in order],
            deployed=self.deployed, quarantine=self.quarantine, ablated=self.ablated, k=k,
            relative_floor=relative_floor, global_floor=global_floor,
        )  # fmt: skip

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Both vectors of every module, by a name to report."""
        return {
            f"{name}, {kind}": vectors[name]
            for kind, vectors in (("deployed", self.deployed), ("quarantine", self.quarantine))
            for name in self.modules
        }

    def loss(self, side: int, j: int) -> Tensor:
        """Of one completion, a scalar with a graph."""
        total: Tensor = torch.zeros((), dtype=next(iter(self.deployed.values())).dtype)
        for name, module in self.modules.items():
            x = self.deployed[name] if self.depth else self.deployed[name] + self.quarantine[name]
            total = total + ((module.slopes[side, j] + 0.5 * module.bends[side, j] * x) * x).sum()
        return total

    @contextmanager
    def ablated(self) -> Iterator[None]:
        """Inside it the losses read the deployed vectors alone; blocks nest."""
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1
