"""The split: each gradient into the part that trains and the part that is removed, for all modules at once.

    gate one_sided: c_use = relu(c)      no_gate: c_use = c      reverse: c_use = 2 c
    c = V g        removed = overshoot · Vᵀ c_use        kept = g - removed

V (k, r) is the hack basis, rows orthonormal or zero, oriented so that c_i > 0 means "a descent step along g moves
hack-ward". Gradient projection of this kind goes back to gradient surgery (Yu et al. 2020, arXiv:2001.06782,
section 2.3), routing into a second parameter set to gradient routing (Cloud et al. 2024, arXiv:2410.04332).

`kept` is computed by subtracting the stored, rounded `removed`, so that elementwise, with u the unit roundoff of g,

    |fl(kept + removed) - g| <= 2 u max(|g|, |removed|, |kept|)                                 (conservation)

and with w the unit roundoff of the working dtype (float32 for the half types, else g's own), h(n) = n w / (1 - n w)
(Higham 2002, section 3.1) and s = overshoot (times two for the gate reverse),

    |fl(removed) - removed| <= s h(r + k + 4) |V|ᵀ(|V||g|) + u |fl(removed)|

in any order of summation, so for the functional and the grouped form alike; the last term only for the half types.
Nothing overflows unless an entry of a part has no representation itself, as in float16 above 65504: clip before.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from projected_grpo.errors import DTypeMismatchError, SettingError, ShapeMismatchError
from projected_grpo.norms import peak_and_norm, working_dtype

Gate = Literal["one_sided", "no_gate", "reverse"]


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """Which share of the component along V is removed, and whether the rest is rescaled to the length of g.

    Raises:
        SettingError: an unknown gate, or an overshoot that is not finite and positive.
    """

    gate: Gate = "one_sided"
    overshoot: float = 1.0
    preserve_magnitude: bool = False

    def __post_init__(self) -> None:
        if self.gate not in get_args(Gate):
            raise SettingError(f"gate is {self.gate!r}; it must be one of {', '.join(get_args(Gate))}.")
        if not finite_and_positive(self.overshoot):
            raise SettingError(f"overshoot is {self.overshoot!r}; it must be a finite number above 0.")
        object.__setattr__(self, "overshoot", float(self.overshoot))  # a checkpoint reads back plain numbers only

    @property
    def strength(self) -> float:
        """How much of a coefficient that passes the gate is removed: 1 is all of it, above 1 is more than there is."""
        return 2 * self.overshoot if self.gate == "reverse" else self.overshoot


def finite_and_positive(value: object) -> bool:
    """Whether a setting is a number that a limit or a factor can have."""
    return isinstance(value, Real) and 0 < float(value) < math.inf


DEFAULT_RULE = SplitRule()


class SplitResult(NamedTuple):
    """kept + removed == g up to rounding, unless the rule preserves the magnitude."""

    kept: Tensor  # (r,), or (m, r) for a stack of m modules
    removed: Tensor  # (r,), or (m, r)
    coefficients: Tensor  # (k,), or (m, k): c = V g before the gate, in the working dtype


def split(g: Tensor, V: Tensor, *, rule: SplitRule = DEFAULT_RULE) -> SplitResult:
    """Splits the gradient g (r,) of one module along its basis V (k, r).

    Returns kept (r,) and removed (r,) in g's dtype, and the coefficients (k,) in the working dtype. Plain arithmetic:
    NaN and infinity in g are not refused here, and spread over both parts.

    Raises:
        ShapeMismatchError: g is no vector, V no matrix, or their lengths differ.
        DTypeMismatchError: V and g differ in dtype.

    >>> split(torch.tensor([3.0, 4.0]), torch.tensor([[1.0, 0.0]])).kept
    tensor([0., 4.])
    """
    if g.ndim != 1 or V.ndim != 2 or V.shape[1] != g.shape[0]:
        raise ShapeMismatchError(f"g is {tuple(g.shape)} and V {tuple(V.shape)}; they must be (r,) and (k, r).")
    if g.dtype != V.dtype:
        raise DTypeMismatchError(f"g is {g.dtype} and V {V.dtype}; convert V with basis.to(dtype={g.dtype}).")
    stacked = split_stack(g[None], V[None].to(working_dtype(V.dtype)), rule)
    return SplitResult(*(part.squeeze(0) for part in stacked))


def coefficients(g: Float[Tensor, "m r"], V: Float[Tensor, "m k r"]) -> Float[Tensor, "m k"]:
    """c = V g of a stack of m modules; V in the working dtype."""
    return torch.bmm(V, g.to(V.dtype).unsqueeze(-1)).squeeze(-1)


def gated(c: Float[Tensor, "m k"], gate: Gate) -> Float[Tensor, "m k"]:
    """The coefficients that are used."""
    if gate == "one_sided":
        return torch.relu(c)
    return c if gate == "no_gate" else 2 * c


def split_stack(g: Float[Tensor, "m r"], V: Float[Tensor, "m k r"], rule: SplitRule) -> SplitResult:
    """Splits a stack of m gradients; V in the working dtype, padded with zero rows to a common k."""
    c = coefficients(g, V)
    used = gated(c, rule.gate) * rule.overshoot
    removed = torch.bmm(used.unsqueeze(1), V).squeeze(1).to(g.dtype)  # (m, 1, k) @ (m, k, r) -> (m, r)
    kept = g - removed
    if rule.preserve_magnitude:
        kept = at_length_of(g, kept)
    return SplitResult(kept, removed, c)


def at_length_of(g: Float[Tensor, "m r"], kept: Float[Tensor, "m r"]) -> Float[Tensor, "m r"]:
    """kept · ‖g‖ / ‖kept‖ row by row; zero stays zero, where the direction is undefined."""
    working = working_dtype(g.dtype)
    peak, norm = peak_and_norm(kept.to(working))
    g_peak, g_norm = peak_and_norm(g.to(working))
    # The direction first: its entries are at most 1, while the quotient of the two norms may overflow.
    direction = kept.to(working) / peak / torch.where(norm > 0, norm, torch.ones_like(norm))
    return (direction * g_norm * g_peak).to(g.dtype)


class _Group(NamedTuple):
    """Modules whose vectors have the same length, dtype and device."""

    names: tuple[str, ...]
    dtype: torch.dtype  # of the vectors; V is in its working dtype
    V: Tensor  # (m, k, r), zero rows below each module's own

    def present(self, vectors: Collection[str]) -> "_Group":
        """The group without the modules that have no vector this time."""
        if all(name in vectors for name in self.names):
            return self
        at = [i for i, name in enumerate(self.names) if name in vectors]
        return self._replace(names=tuple(self.names[i] for i in at), V=self.V[at])

    def stack(self, vectors: Mapping[str, Tensor]) -> Tensor:
        """The vectors of the group, (m, r), after a look at each."""
        r = self.V.shape[-1]
        for name in self.names:
            if vectors[name].shape != (r,):
                raise ShapeMismatchError(f"{name}: the vector is {tuple(vectors[name].shape)}, its basis has r = {r}.")
            if vectors[name].dtype != self.dtype:
                raise DTypeMismatchError(
                    f"{name}: the vector is {vectors[name].dtype} and its basis {self.dtype}; "
                    f"convert the basis with basis.to(dtype={vectors[name].dtype})."
                )
        return torch.stack([vectors[name] for name in self.names])


class Stack(NamedTuple):
    """Vectors of several modules and their coefficients, for statistics."""

    vectors: Tensor  # (m, r)
    coefficients: Tensor  # (m, k), zero where a row is padding


@dataclass(frozen=True)
class GroupedResult:
    """The split of all modules; `stacks` covers those that have rows in the basis."""

    kept: dict[str, Tensor]  # module -> (r,)
    removed: dict[str, Tensor]  # module -> (r,)
    stacks: list[Stack]


class GroupedSplit:
    """The split of many modules in a handful of kernels.

    Modules are grouped by (r, dtype, device); within a group the bases are padded with zero rows to the largest k,
    once, at construction. A call is then stack → bmm → gate → bmm → subtract per group, however many modules there are.

    Arguments:
        rows: module → V (k, r), rows orthonormal or zero, as in a `Basis`; k = 0 and missing modules are fine.
        rule: how the component along V is treated.
    """

    def __init__(self, rows: Mapping[str, Tensor], rule: SplitRule = DEFAULT_RULE) -> None:
        self.rule = rule
        alike: defaultdict[tuple[int, torch.dtype, torch.device], list[str]] = defaultdict(list)
        for name, V in rows.items():
            if V.shape[0]:
                alike[V.shape[1], V.dtype, V.device].append(name)
        self._groups = [
            _Group(tuple(names), dtype, _padded([rows[name] for name in names], working_dtype(dtype)))
            for (_, dtype, _), names in alike.items()
        ]

    def __call__(self, vectors: Mapping[str, Tensor]) -> GroupedResult:
        """Splits module → g (r,). A module without rows keeps all of its gradient and has zeros removed.

        Raises:
            ShapeMismatchError, DTypeMismatchError: a vector does not fit its rows.
        """
        kept, removed = dict(vectors), dict[str, Tensor]()
        stacks = []
        for group in self._groups:
            group = group.present(vectors)
            if not group.names:
                continue
            stacked = group.stack(vectors)
            result = split_stack(stacked, group.V, self.rule)
            kept.update(zip(group.names, result.kept.unbind(), strict=True))
            removed.update(zip(group.names, result.removed.unbind(), strict=True))
            stacks.append(Stack(stacked, result.coefficients))
        for name in vectors:
            if name not in removed:
                removed[name] = torch.zeros_like(vectors[name])
        return GroupedResult(kept, removed, stacks)

    def project(self, vectors: Mapping[str, Tensor]) -> list[Stack]:
        """The vectors (copied) and their coefficients c = V x, without a split."""
        groups = [group for each in self._groups if (group := each.present(vectors)).names]
        stacked = [(group.stack(vectors), group.V) for group in groups]
        return [Stack(x, coefficients(x, V)) for x, V in stacked]

    def axes(self, vectors: Collection[str]) -> tuple[int, int]:
        """(Σk, Σr) over the modules among `vectors` that have rows; k counts the rows that aren't zero."""
        groups = [group.present(vectors) for group in self._groups]
        k = sum(int(group.V.any(dim=-1).sum()) for group in groups)
        return k, sum(len(group.names) * group.V.shape[-1] for group in groups)


def _padded(rows: list[Tensor], dtype: torch.dtype) -> Tensor:
    """Bases (k_i, r) -> (m, max k_i, r), with zero rows at the end, which remove nothing."""
    most = max(V.shape[0] for V in rows)
    return torch.stack([torch.cat([V, V.new_zeros(most - V.shape[0], V.shape[1])]).to(dtype) for V in rows])
