"""Hypothesis strategies for the inputs of the suite, for its own use and for property tests of your own.

    from hypothesis import given
    from invariants.strategies import split_cases

    @given(split_cases())
    def test_my_split(case):
        kept, removed = my_split(case.g, case.V)
        assert (removed == 0).all() or case.V.any()

Everything is float64. What is drawn shrinks to something that can be read: few coordinates, rows and steps; whole
numbers; a basis along the axes, then one turned by the angles of the 3-4-5 triangle; magnitude 1.

>>> from hypothesis import find
>>> find(split_cases(), lambda case: bool((case.V @ case.g > 0).any())).told
'r=1, k=1: g=[1.0], V=[[1.0]]'
"""

from collections.abc import Callable
from functools import cache
from itertools import combinations
from math import frexp

import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from torch import Tensor

from invariants.cases.adapter import AdapterCase
from invariants.cases.routed_step import StepCase, limit_between
from invariants.cases.split import SplitCase

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

# Integers stay between -100 and 100: beyond that hypothesis mixes in constants of whatever modules are imported, and
# the same seed would draw other cases in another process.
_WHOLE = st.integers(-4, 4)
_SIGN = st.sampled_from([1.0, -1.0])


@cache
def _below(n: int) -> SearchStrategy[int]:
    return st.integers(0, n - 1)


@cache
def _permutations(n: int) -> SearchStrategy[list[int]]:
    return st.permutations(range(n))


@cache
def _planes(n: int) -> SearchStrategy[tuple[int, int]]:
    return st.sampled_from([*combinations(range(n), 2)])


def dtypes() -> SearchStrategy[torch.dtype]:
    """What subjects compute in; float64 first."""
    return st.sampled_from(DTYPES)


@cache
def magnitudes(lowest: int = -30, highest: int = 30) -> SearchStrategy[float]:
    """Powers of ten, 1 first."""
    return st.integers(lowest, highest).map(lambda exponent: 10.0**exponent)


@cache
def extremes() -> SearchStrategy[float]:
    """Powers of two that are denormal in some dtype, or whose squares overflow or underflow there."""
    denormal = [torch.finfo(dtype).tiny / 8 for dtype in DTYPES]
    long = [4 * _root(torch.finfo(dtype).max) for dtype in DTYPES]
    short = [_root(torch.finfo(dtype).tiny) / 4 for dtype in DTYPES]
    return st.sampled_from(sorted({*denormal, *long, *short}))


def _root(x: float) -> float:
    """A power of two near the square root."""
    return float(2.0 ** (frexp(x)[1] // 2))


@cache
def shapes(largest: int = 6) -> SearchStrategy[tuple[int, int]]:
    """(k, r) with k from 0 to r, both included."""
    return st.integers(1, largest).flatmap(lambda r: st.tuples(st.integers(0, r), st.just(r)))


@cache
def vectors(n: int, entries: SearchStrategy[float] | SearchStrategy[int] = _WHOLE) -> SearchStrategy[Tensor]:
    """(n,), by default of small whole numbers."""
    return st.tuples(*[entries] * n).map(lambda values: torch.tensor(values, dtype=torch.float64))


@st.composite
def bases(draw: DrawFn, k: int, r: int) -> Tensor:
    """(k, r), rows orthonormal or zero: axes with signs, then turned in up to three planes; or some rows zeroed."""
    V = torch.zeros(k, r, dtype=torch.float64)
    axes = draw(_permutations(r))[:k] if k else ()
    for row, axis in enumerate(axes):
        V[row, axis] = draw(_SIGN)
    V = _turned(draw, V) if k else V
    if k and draw(_below(5)) == 4:
        V[draw(_below(k))] = 0.0
    return V


def _turned(draw: DrawFn, M: Tensor) -> Tensor:
    """(m, n) with its columns turned by the angle of the 3-4-5 triangle, in up to three planes."""
    n = M.shape[1]
    for _ in range(draw(_below(4)) if n > 1 else 0):
        i, j = draw(_planes(n))
        a, b = M[:, i].clone(), M[:, j].clone()
        M[:, i], M[:, j] = 0.6 * a - 0.8 * b, 0.8 * a + 0.6 * b
    return M


@st.composite
def gradients(draw: DrawFn, V: Tensor, *, wide: bool = True) -> Tensor:
    """(r,) for a basis (k, r): any, one coordinate, equal magnitudes, in the span of V on either side, orthogonal to
    it, or over many magnitudes; zero is among them.

    wide: of any magnitude, and with entries of many; else moderate, as whole numbers are.
    """
    k, r = V.shape
    kind = draw(_below(6 if wide else 5))
    if kind == 1:
        g = torch.eye(r, dtype=torch.float64)[draw(_below(r))]
    elif kind == 2:
        g = draw(vectors(r, _SIGN))
    elif kind == 3 and k:
        g = V.T @ draw(vectors(k))
    else:
        g = draw(vectors(r))
        if kind == 4:
            g = g - V.T @ (V @ g)
        elif kind == 5:
            g = g * draw(vectors(r, magnitudes()))
    if not wide:
        return g
    return g * draw(extremes() if draw(_below(3)) == 2 else magnitudes())


@st.composite
def split_cases(draw: DrawFn, largest: int = 6) -> SplitCase:
    """A gradient and a basis with r up to `largest`."""
    k, r = draw(shapes(largest))
    V = draw(bases(k, r))
    return SplitCase(g=draw(gradients(V)), V=V, label="drawn")


@st.composite
def step_cases(draw: DrawFn, largest: int = 4, steps: int = 5) -> StepCase:
    """Up to three modules of up to `largest` coordinates, over up to `steps` steps; the first has a row in its basis.

    The magnitudes, one to a module, stay within seven orders: the theorems on optimizers have no term for what a
    second moment loses by overflow and underflow.
    """
    count, length = 1 + draw(_below(3)), 1 + draw(_below(steps))
    fed: dict[str, Tensor] = {}
    basis: dict[str, Tensor] = {}
    start: dict[str, Tensor] = {}
    for name in "abc"[:count]:
        k, r = draw(shapes(largest))
        V = draw(bases(k, r) if basis else bases(max(k, 1), r).filter(lambda rows: bool(rows.any())))
        rows = [draw(gradients(V, wide=False)) for _ in range(length)]
        fed[name], basis[name] = torch.stack(rows) * draw(magnitudes(-6, 1)), V
        start[name] = draw(vectors(r)) if draw(_below(3)) == 2 else torch.zeros(r, dtype=torch.float64)
    return StepCase(gradients=fed, basis=basis, start=start, max_norm=limit_between(fed), label="drawn")


@st.composite
def adapter_cases(draw: DrawFn, largest: int = 4, batch: int = 3) -> AdapterCase:
    """A Linear with both sides up to `largest` and distinct singular values, which its directions depend on."""
    d_out, d_in = 1 + draw(_below(largest)), 1 + draw(_below(largest))
    r = min(d_out, d_in)
    weight = torch.zeros(d_out, d_in, dtype=torch.float64)
    weight.diagonal().copy_(draw(_SIGN) * torch.arange(r, 0, -1))
    weight = _turned(draw, _turned(draw, weight).T.contiguous()).T.contiguous()
    x = [draw(vectors(d_in)) for _ in range(1 + draw(_below(batch)))]
    return AdapterCase(
        weight=weight * draw(magnitudes(-1, 1)), bias=draw(vectors(d_out)) if draw(_below(2)) else None,
        deployed=draw(vectors(r)) / 4, quarantine=draw(vectors(r)) / 4, x=torch.stack(x), label="drawn",
    )  # fmt: skip


CASES: dict[str, Callable[[], SearchStrategy[SplitCase] | SearchStrategy[StepCase] | SearchStrategy[AdapterCase]]] = {
    "split": split_cases, "routed_step": step_cases, "adapter": adapter_cases,
}  # fmt: skip
"""The strategy of each capability that has one."""
