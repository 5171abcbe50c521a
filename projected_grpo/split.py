"""The split: each gradient into the part that trains and the part that is removed, for all modules at once.

    gate one_sided: c_use = relu(c)      no_gate: c_use = c      reverse: c_use = 2 c
    predictable: c_use = c on the axes that are open, 0 on the others
    c = V g        removed = overshoot · Vᵀ c_use        kept = g - removed

V (k, r) is the hack basis, rows orthonormal or zero, oriented so that c_i > 0 means "a descent step along g moves
hack-ward". Gradient projection of this kind goes back to gradient surgery (Yu et al. 2020, arXiv:2001.06782,
section 2.3), routing into a second parameter set to gradient routing (Cloud et al. 2024, arXiv:2410.04332).

The first three gates look at c alone. The predictable one looks at the past alone: an axis is open where the running
mean m of its coefficients so far is above 0,

    m = 0 before the first step, so closed        after each step  m ← 0.9 m + 0.1 c

so that what is removed is linear in c given the past, and independent noise of mean zero stays of mean zero, while
relu of it does not. The price is lag: an axis on which hacking begins opens late, and one on which it ends closes late.

`kept` is computed by subtracting the stored, rounded `removed`, so that elementwise, with u the unit roundoff of g,

    |fl(kept + removed) - g| <= 2 u max(|g|, |removed|, |kept|)                                 (conservation)

and with w the unit roundoff of the working dtype (float32 for the half types, else g's own), h(n) = n w / (1 - n w)
(Higham 2002, section 3.1) and s = overshoot (times two for the gate reverse),

    |fl(removed) - removed| <= s h(r + k + 4) |V|ᵀ(|V||g|) + u |fl(removed)|

in any order of summation, so for the functional and the grouped form alike; the last term only for the half types.
Nothing overflows unless an entry of a part has no representation itself, as in float16 above 65504: clip before.
"""

import math
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from numbers import Real
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from projected_grpo import kernels
from projected_grpo.errors import DTypeMismatchError, SettingError, ShapeMismatchError
from projected_grpo.norms import in_own_dtypes, peak_and_norm, working_dtype
from projected_grpo.stacks import Layout, Stacks

MemorylessGate = Literal["one_sided", "no_gate", "reverse"]
Gate = Literal[MemorylessGate, "predictable"]
DECAY = 0.9  # of what the predictable gate remembers


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
    def remembers(self) -> bool:
        """Whether the gate depends on earlier steps."""
        return self.gate == "predictable"

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


def split(g: Tensor, V: Tensor, *, rule: SplitRule = DEFAULT_RULE, open: Tensor | None = None) -> SplitResult:
    """Splits the gradient g (r,) of one module along its basis V (k, r).

    The function has no memory: the gate predictable is told which axes are `open`, (k,) bool.

    Returns kept (r,) and removed (r,) in g's dtype, and the coefficients (k,) in the working dtype. Plain arithmetic:
    NaN and infinity in g are not refused here, and spread over both parts.

    Raises:
        ShapeMismatchError: g is no vector, V no matrix, their lengths differ, or `open` has not one value an axis.
        DTypeMismatchError: V and g differ in dtype, or `open` is not bool.
        SettingError: the gate predictable without `open`, or another gate with it.

    >>> split(torch.tensor([3.0, 4.0]), torch.tensor([[1.0, 0.0]])).kept
    tensor([0., 4.])
    """
    if g.ndim != 1 or V.ndim != 2 or V.shape[1] != g.shape[0]:
        raise ShapeMismatchError(f"g is {tuple(g.shape)} and V {tuple(V.shape)}; they must be (r,) and (k, r).")
    if g.dtype != V.dtype:
        raise DTypeMismatchError(f"g is {g.dtype} and V {V.dtype}; convert V with basis.to(dtype={g.dtype}).")
    if open is None and rule.remembers:
        raise SettingError(f"The gate {rule.gate} looks at earlier steps; pass open=, which of the axes it has open.")
    if open is not None and not rule.remembers:
        raise SettingError(f"The gate {rule.gate} opens by the gradient itself; leave open= out.")
    if open is not None and open.shape != V.shape[:1]:
        raise ShapeMismatchError(f"open is {tuple(open.shape)} and V {tuple(V.shape)}; they must be (k,) and (k, r).")
    if open is not None and open.dtype != torch.bool:
        raise DTypeMismatchError(f"open is {open.dtype}; it must be bool.")
    with in_own_dtypes():
        wide = V[None].to(working_dtype(V.dtype))
        stacked = split_stack(g[None], wide, rule, open=None if open is None else open[None])
    return SplitResult(*(part.squeeze(0) for part in stacked))


def coefficients(g: Float[Tensor, "m r"], V: Float[Tensor, "m k r"]) -> Float[Tensor, "m k"]:
    """c = V g of a stack of m modules; V in the working dtype.

    As g Vᵀ, which takes half the time of V g on a CPU: V is read along its rows either way, but by another kernel.
    """
    return torch.bmm(g.to(V.dtype).unsqueeze(1), V.mT).squeeze(1)


def from_coefficients(c: Float[Tensor, "m k"], V: Float[Tensor, "m k r"], dtype: torch.dtype) -> Float[Tensor, "m r"]:
    """Vᵀ c, rounded to the dtype."""
    return torch.bmm(c.unsqueeze(1), V).squeeze(1).to(dtype)  # (m, 1, k) @ (m, k, r) -> (m, 1, r)


def gated(c: Float[Tensor, "m k"], gate: Gate, open: Bool[Tensor, "m k"] | None) -> Float[Tensor, "m k"]:
    """The coefficients that are used; `open` is the predictable gate's."""
    if open is not None:
        return torch.where(open, c, torch.zeros_like(c))
    if gate == "one_sided":
        return torch.relu(c)
    return c if gate == "no_gate" else 2 * c


def split_stack(
    g: Float[Tensor, "m r"],
    V: Float[Tensor, "m k r"],
    rule: SplitRule,
    *,
    open: Bool[Tensor, "m k"] | None = None,
    in_place: bool = False,
) -> SplitResult:
    """Splits a stack of m gradients; V in the working dtype, padded with zero rows to a common k.

    in_place: what is kept may be written over g, which saves a pass over new memory.
    """
    c = coefficients(g, V)
    used = gated(c, rule.gate, open) * rule.overshoot
    removed = from_coefficients(used, V, g.dtype)
    if rule.preserve_magnitude:
        return SplitResult(at_length_of(g, g - removed), removed, c)
    return SplitResult(torch.sub(g, removed, out=g) if in_place else g - removed, removed, c)


def fastest_split(
    g: Float[Tensor, "m r"],
    V: Float[Tensor, "m k r"],
    rule: SplitRule,
    *,
    open: Bool[Tensor, "m k"] | None = None,
    in_place: bool = False,
) -> SplitResult:
    """`split_stack`, by the compiled loops where they serve."""
    if not kernels.serve(V, [g]):
        return split_stack(g, V, rule, open=open, in_place=in_place)
    kept, removed, c = kernels.split(
        g, V, one_sided=rule.gate == "one_sided", strength=rule.strength, open=open,
        in_place=in_place and not rule.preserve_magnitude,
    )  # fmt: skip
    return SplitResult(at_length_of(g, kept) if rule.preserve_magnitude else kept, removed, c)


def at_length_of(g: Float[Tensor, "m r"], kept: Float[Tensor, "m r"]) -> Float[Tensor, "m r"]:
    """kept · ‖g‖ / ‖kept‖ row by row; zero stays zero, where the direction is undefined."""
    working = working_dtype(g.dtype)
    peak, norm = peak_and_norm(kept.to(working))
    g_peak, g_norm = peak_and_norm(g.to(working))
    # The direction first: its entries are at most 1, while the quotient of the two norms may overflow.
    direction = kept.to(working) / peak / torch.where(norm > 0, norm, torch.ones_like(norm))
    return (direction * g_norm * g_peak).to(g.dtype)


class Stack(NamedTuple):
    """Vectors of several modules and their coefficients, for statistics."""

    vectors: Tensor  # (m, r)
    coefficients: Tensor  # (m, k), zero where a row is padding


@dataclass(frozen=True)
class GroupedResult:
    """The split of all modules; `stacks` and `parts` cover those that have rows in the basis."""

    kept: dict[str, Tensor]  # module -> (r,)
    removed: dict[str, Tensor]  # module -> (r,)
    stacks: list[Stack]  # what was split
    parts: list[SplitResult]  # what became of it, (m, r); kept and removed are their rows
    memory: dict[str, Tensor]  # module -> (k,): what the predictable gate remembers from here on; else empty


class GroupedSplit:
    """The split of many modules in a handful of kernels.

    Modules are grouped by (r, dtype, device); within a group the bases are padded with zero rows to the largest k,
    once, at construction. A call is then stack → bmm → gate → bmm → subtract per group, however many modules there are.
    The predictable gate's memory comes in and goes out with each call; nothing is kept here.

    Arguments:
        rows: module → V (k, r), rows orthonormal or zero, as in a `Basis`; k = 0 and missing modules are fine.
        rule: how the component along V is treated.
    """

    def __init__(self, rows: Mapping[str, Tensor], rule: SplitRule = DEFAULT_RULE) -> None:
        self.rule = rule
        covered = {name: V for name, V in rows.items() if V.shape[0]}
        self.layout = Layout(covered)
        self.V = [
            _padded([rows[name] for name in group.names], working_dtype(group.dtype)) for group in self.layout.groups
        ]
        self._grams: list[Tensor] | None = None
        self._k = {name: V.shape[0] for name, V in covered.items()}
        counts = [int(count) for V in self.V for count in V.any(dim=-1).sum(dim=-1).tolist()]
        self._axes = {name: (k, rows[name].shape[1]) for name, k in zip(self.layout.names, counts, strict=True)}
        self._all_axes = _totals(self._axes.values())

    def __call__(self, vectors: Mapping[str, Tensor], memory: Mapping[str, Tensor] | None = None) -> GroupedResult:
        """Splits module → g (r,). A module without rows keeps all of its gradient and has zeros removed.

        Arguments:
            vectors: what is split.
            memory: module → (k,), for the gate predictable: the running means of its axes; a module that has none is
                closed.

        Raises:
            ShapeMismatchError, DTypeMismatchError, DeviceMismatchError: a vector does not fit its rows.
            SettingError: the gate predictable without a memory.
        """
        this = self.restricted(vectors)
        stacks = this.layout.stack(vectors)
        with in_own_dtypes():
            parts, remembered = this.of_stacks(stacks, memory)
        kept, removed = dict(vectors), dict[str, Tensor]()
        kept.update(this.layout.rows(part.kept for part in parts))
        removed.update(this.layout.rows(part.removed for part in parts))
        removed.update({name: torch.zeros_like(g) for name, g in vectors.items() if name not in removed})
        seen = [Stack(g, part.coefficients) for g, part in zip(stacks, parts, strict=True)]
        return GroupedResult(kept, removed, seen, parts, remembered)

    def of_stacks(
        self,
        stacks: Stacks,
        memory: Mapping[str, Tensor] | None,
        seen: Collection[str] | None = None,
    ) -> tuple[list[SplitResult], dict[str, Tensor]]:
        """Splits the stacks of `layout`, one result for each, and says what the gate remembers then.

        Arguments:
            stacks: what is split, (m, r) for each group.
            memory: as in a call.
            seen: the modules that the gate learns of; all if None.

        Raises SettingError for the gate predictable without a memory.
        """
        means = self.means(memory)
        parts = [
            fastest_split(g, V, self.rule, open=None if mean is None else mean > 0)
            for g, V, mean in zip(stacks, self.V, means, strict=True)
        ]
        return parts, self.remembered(memory, means, [part.coefficients for part in parts], seen)

    def means(self, memory: Mapping[str, Tensor] | None) -> list[Float[Tensor, "_ _"] | None]:
        """What the gate remembers, for each group; zeros where it saw nothing, and below each module's k. None for a
        gate that goes by the coefficients alone.

        Raises SettingError for the gate predictable without a memory.
        """
        if not self.rule.remembers:
            return [None] * len(self.V)
        if memory is None:
            raise SettingError(
                f"The gate {self.rule.gate} looks at earlier steps, and there are none here; use another gate."
            )
        found: list[Tensor | None] = []
        for group, V in zip(self.layout.groups, self.V, strict=True):
            unseen = V.new_zeros(k := V.shape[1])
            rows = [memory.get(name, unseen) for name in group.names]
            found.append(torch.stack([row if len(row) == k else pad(row, (0, k - len(row))) for row in rows]))
        return found

    def remembered(
        self,
        memory: Mapping[str, Tensor] | None,
        means: Sequence[Float[Tensor, "_ _"] | None],
        coefficients: Sequence[Float[Tensor, "_ _"]],
        seen: Collection[str] | None = None,
    ) -> dict[str, Tensor]:
        """What the gate remembers after a split that gave the coefficients of each group; see `of_stacks`."""
        after = [DECAY * m + (1 - DECAY) * c for m, c in zip(means, coefficients, strict=True) if m is not None]
        learned = {
            name: mean[: self._k[name]]
            for name, mean in (self.layout.rows(after) if after else {}).items()
            if seen is None or name in seen
        }
        return {**(memory or {}), **learned}

    def project(self, vectors: Mapping[str, Tensor]) -> list[Stack]:
        """The vectors (copied) and their coefficients c = V x, without a split."""
        this = self.restricted(vectors)
        with in_own_dtypes():
            return [Stack(x, coefficients(x, V)) for x, V in zip(this.layout.stack(vectors), this.V, strict=True)]

    @property
    def loops(self) -> str | None:
        """What computes in place of torch where a stack is large enough, such as "numba 0.68.1", if anything does."""
        return f"numba {kernels.version()}" if any(kernels.enabled(V) for V in self.V) else None

    def axes(self, vectors: Set[str] | None = None) -> tuple[int, int]:
        """(Σk, Σr) over the modules that have rows, of those named if any are; k counts the rows that aren't zero."""
        if vectors is None or self._axes.keys() <= vectors:
            return self._all_axes
        return _totals([axes for name, axes in self._axes.items() if name in vectors])

    def restricted(self, vectors: Collection[str]) -> "GroupedSplit":
        """The split of those modules that have a vector this time."""
        if all(name in vectors for name in self.layout.names):
            return self
        present = {name: V for name, V in self._rows().items() if name in vectors}
        return GroupedSplit(present, self.rule)

    def grams(self) -> list[Float[Tensor, "m k k"]]:
        """V Vᵀ of each module: the identity, but for rows that are zero and for rounding; computed once."""
        if self._grams is None:
            with in_own_dtypes():
                self._grams = [torch.bmm(V, V.mT) for V in self.V]
        return self._grams

    def _rows(self) -> dict[str, Tensor]:
        """Module → V (k, r), without the padding and in the dtype of its vectors, in which the rows came."""
        dtypes = {name: group.dtype for group in self.layout.groups for name in group.names}
        return {name: V[: self._k[name]].to(dtypes[name]) for name, V in self.layout.rows(self.V).items()}


def _totals(axes: Collection[tuple[int, int]]) -> tuple[int, int]:
    return sum(k for k, _ in axes), sum(r for _, r in axes)


def _padded(rows: list[Tensor], dtype: torch.dtype) -> Tensor:
    """Bases (k_i, r) -> (m, max k_i, r), with zero rows at the end, which remove nothing."""
    most = max(V.shape[0] for V in rows)
    with in_own_dtypes():
        return torch.stack([torch.cat([V, V.new_zeros(most - V.shape[0], V.shape[1])]).to(dtype) for V in rows])
