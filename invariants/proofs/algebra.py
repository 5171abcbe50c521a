"""Exact algebra: orthonormal frames, gradients with known signs along them, and steps that compare expressions.

An orthonormal frame of R^3 is a rotation, and every rotation is Euler and Rodrigues' matrix of a quaternion
(w, x, y, z) that is not zero. A basis V is the frame's first k rows, and a gradient is written in the frame, as
g = c_1 v_1 + ... + c_k v_k + m_1 n_1 + ..., which is every gradient. The c_i are symbols with a known sign, so that
relu is decided and never approximated; a proof goes through all patterns of signs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import sympy as sp

from invariants.proofs.registry import Step

Expr = Any  # sympy has no types
Matrix = Any

SIGNS = ("positive", "zero", "negative")
BY_ROTATION = (
    "Orthogonal maps carry any rows and any gradient into the span of the rows and one more axis, and the split "
    "commutes with them (split.rotation); parts of rows that are orthonormal never meet, so k rows are k times one row."
)


@dataclass(frozen=True)
class Frame:
    """A basis V (k, 3) with orthonormal rows, and a gradient g (3, 1) whose coefficients V g = c have known signs."""

    V: Matrix
    g: Matrix
    c: Matrix
    label: str


def rotation() -> Matrix:
    """The general rotation of R^3, (3, 3), rational in a quaternion."""
    w, x, y, z = sp.symbols("w x y z", real=True)
    n = w**2 + x**2 + y**2 + z**2
    return sp.Matrix([
        [n - 2 * (y**2 + z**2), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), n - 2 * (x**2 + z**2), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), n - 2 * (x**2 + y**2)],
    ]) / n  # fmt: skip


def signed(name: str, sign: str) -> Expr:
    """A symbol that is known to be positive or negative, or zero itself."""
    return sp.Integer(0) if sign == "zero" else sp.Symbol(f"{name}{'+' if sign == 'positive' else '-'}", **{sign: True})


FIXED = sp.Matrix([[2, 3, 6], [3, -6, 2], [6, 2, -3]]) / 7


def frames(axes: Matrix | None = None) -> Iterator[Frame]:
    """Every basis of one or two rows in R^3, or the rows of `axes`, with every gradient, a pattern of signs at a time.

    Since the split commutes with rotations, one frame is as good as all; FIXED is one, and much faster.
    """
    axes = rotation() if axes is None else axes
    for k in (1, 2):
        normal = [sp.Symbol(f"m{i}", real=True) for i in range(3 - k)]
        for signs in product(SIGNS, repeat=k):
            c = [signed(f"c{i}", sign) for i, sign in enumerate(signs)]
            yield Frame(axes[:k, :], axes.T * sp.Matrix(c + normal), sp.Matrix(c), f"k={k}, c {' '.join(signs)}")


cancelled = cache(sp.cancel)


def simplest(expression: Expr) -> Expr:
    """A rational expression, or a matrix of them, with common factors cancelled; zero becomes 0."""
    if isinstance(expression, sp.MatrixBase):
        return expression.applyfunc(cancelled)
    return cancelled(sp.sympify(expression))


@cache
def vanishes(expression: Expr) -> bool:
    """Whether a rational function is zero: its numerator, over a common denominator, is the zero polynomial."""
    return bool(sp.expand(sp.fraction(sp.together(expression))[0]) == 0)


def relu(x: Expr) -> Expr:
    """max(x, 0) of an expression whose sign is known; raises ValueError where it isn't, rather than guess."""
    x = simplest(x)
    if x.is_nonnegative:
        return x
    if x.is_nonpositive:
        return sp.Integer(0)
    raise ValueError(f"the sign of {x} is not known")


def same(a: Expr, b: Expr, what: str) -> Step:
    """a = b, as rational functions."""
    difference = sp.sympify(a) - sp.sympify(b)
    entries = list(difference) if isinstance(difference, sp.MatrixBase) else [difference]
    left = next((simplest(entry) for entry in entries if not vanishes(entry)), None)
    return Step(what, left is None, f"the difference is {left}")


def differ(a: Expr, b: Expr, what: str) -> Step:
    """a and b are different numbers."""
    difference = sp.simplify(sp.sympify(a) - sp.sympify(b))
    return Step(what, bool(difference.is_zero is False), f"both are {a}")


def is_true(condition: Any, what: str) -> Step:
    """A condition that computer algebra decides; what it cannot decide counts as false."""
    return Step(what, condition is True or condition == sp.true, f"it is {condition}")


def nonpositive(expression: Expr, what: str) -> Step:
    """No entry is above zero, by the signs of the symbols."""
    entries = list(sp.Matrix([simplest(expression)]))
    return Step(what, all(e.is_nonpositive is True for e in entries), f"it is {entries}")
