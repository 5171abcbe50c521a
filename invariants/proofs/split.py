"""T1 to T5: the algebra of one gradient and one basis."""

from collections.abc import Iterator
from itertools import combinations_with_replacement, product
from typing import Any, get_args

import sympy as sp

from invariants.proofs.algebra import (
    BY_ROTATION,
    FIXED,
    SIGNS,
    Expr,
    Frame,
    Matrix,
    differ,
    frames,
    nonpositive,
    relu,
    rotation,
    same,
    signed,
    simplest,
)
from invariants.proofs.registry import Step, proof
from reference.split import MemorylessGate as Gate

GATES: tuple[Gate, ...] = get_args(Gate)
EXACT = sp.Rational
PER_ROW = "Each coefficient enters by itself, and the parts are sums over rows."


def gated(c: Matrix, gate: Gate) -> Matrix:
    """The coefficients that are used, (k, 1) -> (k, 1)."""
    return c.applyfunc(relu) if gate == "one_sided" else c if gate == "no_gate" else 2 * c


def split(g: Matrix, V: Matrix, gate: Gate = "one_sided", overshoot: Expr = 1) -> tuple[Matrix, Matrix]:
    """(kept, removed), in exact arithmetic; what reference.split computes in floating point."""
    removed = overshoot * V.T * gated(simplest(V * g), gate)
    return g - removed, removed


def cases(gates: tuple[Gate, ...] = GATES, axes: Matrix | None = None) -> Iterator[tuple[Frame, Gate, str]]:
    """Every frame with every gate."""
    for frame, gate in product(list(frames(axes)), gates):
        yield frame, gate, f"{gate}, {frame.label}"


def squared(v: Matrix) -> Expr:
    """|v|^2."""
    return (v.T * v)[0]


@proof("split.rotation", theorem="T1", supports=(), extends="Holds for all V and Q; only Q^T Q = 1 enters.")
def rotated(split: Any = split) -> Iterator[Step]:
    """split(Q g, V Q^T) = Q split(g, V) for every rotation Q: in another frame the parts are the same vectors."""
    Q, V = rotation(), sp.Matrix(1, 3, sp.symbols("a:3", real=True))
    g = sp.Matrix(sp.symbols("g:3", real=True))
    for gate in ("no_gate", "reverse"):
        for part, turned in zip(split(g, V, gate), split(Q * g, V * Q.T, gate), strict=True):
            yield same(turned, Q * part, gate)
    yield same((V * Q.T) * (Q * g), V * g, "coefficients, and so any gate of them")


@proof("split.conservation", theorem="T1", supports=("split.conservation",), extends=BY_ROTATION)
def conservation(split: Any = split) -> Iterator[Step]:
    """kept + removed = g, for every gate and overshoot."""
    overshoot = sp.Symbol("s", positive=True)
    for frame, gate, label in cases():
        kept, removed = split(frame.g, frame.V, gate, overshoot)
        yield same(kept + removed, frame.g, label)


@proof(
    "split.rescaling_adds", theorem="T1", supports=("split.conservation",), kind="counterexample",
    extends="One example is enough.",
)  # fmt: skip
def rescaling_adds() -> Iterator[Step]:
    """With preserve_magnitude the parts need not add up: g = (3, 4), V = (1, 0) keeps (0, 5)."""
    g = sp.Matrix([3, 4])
    kept, removed = split(g, sp.Matrix([[1, 0]]))
    rescaled = kept * g.norm() / kept.norm()
    yield same(rescaled, sp.Matrix([0, 5]), "what is kept")
    yield differ((rescaled + removed)[1], g[1], "the sum")


@proof(
    "split.conservation_bound", theorem="T1", supports=("split.conservation",),
    extends=(
        "Elementwise, for every format: |fl(x) - x| is at most u/(1 + u) |x| and u |fl(x)| for a sum x of two floats "
        "(Jeannerod and Rump 2018, Math. Comp. 87, after Knuth and Dekker; sums below the normal range are exact)."
    ),
)  # fmt: skip
def conservation_bound(share: Any = lambda u: u / (1 + u)) -> Iterator[Step]:
    """In floating point |fl(kept + removed) - g| <= 2 u M, M = max(|g|, |removed|, |kept|), kept = fl(g - removed)."""
    u, M = sp.symbols("u M", positive=True)
    first = u * M  # |kept - (g - removed)| <= u |kept|
    exact = M + first  # |kept + removed| <= |g| + that
    second = share(u) * exact  # what rounding this sum adds
    yield same(first + second, 2 * u * M, "both roundings together")


@proof("split.pythagoras", theorem="T2", supports=("split.pythagoras", "clip.vanilla_norm"), extends=BY_ROTATION)
def pythagoras(split: Any = split, gates: tuple[Gate, ...] = ("one_sided", "no_gate")) -> Iterator[Step]:
    """<kept, removed> = 0 and |kept|^2 + |removed|^2 = |g|^2, for one_sided and no_gate at overshoot 1."""
    for frame, gate, label in cases(gates):
        kept, removed = split(frame.g, frame.V, gate)
        yield same((kept.T * removed)[0], 0, f"orthogonal, {label}")
        yield same(squared(kept) + squared(removed), squared(frame.g), f"lengths, {label}")


@proof("split.span", theorem="T2", supports=("split.span",), extends=BY_ROTATION)
def span(split: Any = split) -> Iterator[Step]:
    """removed = V^T V removed: what is removed lies in the span of V, for every gate and overshoot."""
    overshoot = sp.Symbol("s", positive=True)
    for frame, gate, label in cases(axes=FIXED):
        _, removed = split(frame.g, frame.V, gate, overshoot)
        yield same(frame.V.T * (frame.V * removed), removed, label)


@proof("split.one_sided", theorem="T3", supports=("split.one_sided",), extends=BY_ROTATION)
def one_sided(split: Any = split) -> Iterator[Step]:
    """V kept is -relu(-c) <= 0 one-sided, 0 without a gate and -c reversed."""
    for frame, gate, label in cases():
        left = frame.V * split(frame.g, frame.V, gate)[0]
        expected = {"one_sided": -(-frame.c).applyfunc(relu), "no_gate": 0 * frame.c, "reverse": -frame.c}[gate]
        yield same(left, expected, label)
        if gate != "reverse":
            yield nonpositive(left, f"not hack-ward, {label}")


@proof("split.idempotence", theorem="T4", supports=("split.idempotence",), extends=BY_ROTATION)
def idempotence(
    split: Any = split, gates: tuple[Gate, ...] = ("one_sided", "no_gate"), beyond: bool = True
) -> Iterator[Step]:
    """Splitting kept again removes nothing: one_sided with overshoot 1 + s, s >= 0, and no_gate with overshoot 1."""
    for frame, gate, label in cases(gates):
        overshoot = 1 + sp.Symbol("s", nonnegative=True) if gate == "one_sided" and beyond else 1
        kept, _ = split(frame.g, frame.V, gate, overshoot)
        yield same(split(kept, frame.V, gate, overshoot)[1], sp.zeros(3, 1), label)


@proof(
    "split.homogeneity", theorem="T5", supports=("split.homogeneity", "split.zero_gradient", "clip.common_factor"),
    extends=BY_ROTATION,
)  # fmt: skip
def homogeneity(split: Any = split) -> Iterator[Step]:
    """split(s g) = s split(g) for s > 0, with every gate and overshoot; a zero gradient is split into zeros."""
    s, overshoot = sp.symbols("s o", positive=True)
    for frame, gate, label in cases(axes=FIXED):
        longer = split(s * frame.g, frame.V, gate, overshoot)
        for part, at_one in zip(longer, split(frame.g, frame.V, gate, overshoot), strict=True):
            yield same(part, s * at_one, label)
        for part in split(0 * frame.g, frame.V, gate, overshoot):
            yield same(part, sp.zeros(3, 1), f"zero, {label}")


@proof("split.additivity", theorem="T5", supports=("split.additivity",), extends=BY_ROTATION)
def additivity(split: Any = split, gates: tuple[Gate, ...] = ("no_gate", "reverse")) -> Iterator[Step]:
    """split(g + h) = split(g) + split(h) for the gates no_gate and reverse."""
    other = sp.Matrix(sp.symbols("h:3", real=True))
    for frame, gate, label in cases(gates, FIXED):
        parts = (split(v, frame.V, gate) for v in (frame.g + other, frame.g, other))
        for total, a, b in zip(*parts, strict=True):
            yield same(total, a + b, label)


@proof(
    "split.relu_is_not_additive", theorem="T5", supports=("split.additivity", "optimizer.accumulation"),
    kind="counterexample",
    extends="One example is enough; it lives in the span of one row, which every non-empty basis has.",
)  # fmt: skip
def relu_is_not_additive(gate: Gate = "one_sided") -> Iterator[Step]:
    """One-sided the split of a sum is not the sum of the splits: +1 and -1 along V cancel, their parts do not."""
    V, up, down = sp.Matrix([[EXACT(3, 5), EXACT(4, 5)]]), sp.Matrix([3, 4]) / 5, -sp.Matrix([3, 4]) / 5
    apart = split(up, V, gate)[1] + split(down, V, gate)[1]
    yield same(split(up + down, V, gate)[1], sp.zeros(2, 1), "the sum is zero and so is its split")
    yield differ(squared(apart), 0, "the parts do not cancel")


@proof(
    "split.preserves_magnitude", theorem="T1", supports=("split.preserves_magnitude",), extends=BY_ROTATION,
)  # fmt: skip
def preserves_magnitude(split: Any = split) -> Iterator[Step]:
    """kept |g| / |kept| is as long as g, wherever kept is not zero, and is homogeneous like the split."""
    s = sp.Symbol("s", positive=True)
    for frame, gate, label in cases(axes=FIXED):
        kept, _ = split(frame.g, frame.V, gate)
        longer, _ = split(s * frame.g, frame.V, gate)
        own, whole = simplest(squared(kept)), simplest(squared(frame.g))
        if own == 0:
            continue  # undefined there; the product keeps zero
        yield same(own * (whole / own), whole, f"length, {label}")
        yield same(simplest(squared(longer)) / squared(s * frame.g), own / whole, f"factor, {label}")


@proof("split.zero_rows", theorem="T1", supports=("split.zero_rows", "split.empty_basis"), extends=PER_ROW)
def zero_rows(split: Any = split) -> Iterator[Step]:
    """Zero rows of V change neither part, and with k = 0 everything is kept."""
    for frame, gate, label in cases(axes=FIXED):
        padded = frame.V.col_join(sp.zeros(2, 3))
        for part, plain in zip(split(frame.g, padded, gate), split(frame.g, frame.V, gate), strict=True):
            yield same(part, plain, label)
        kept, removed = split(frame.g, sp.zeros(1, 3), gate)
        yield same(kept, frame.g, f"kept without a direction, {label}")
        yield same(removed, sp.zeros(3, 1), f"removed without a direction, {label}")
        yield same(split(frame.g, sp.zeros(0, 3), gate)[0], frame.g, f"k = 0, {label}")


@proof(
    "split.overlapping_rows", theorem="T2", supports=("split.pythagoras",), kind="counterexample",
    extends="One example is enough.",
)  # fmt: skip
def overlapping_rows() -> Iterator[Step]:
    """The hypothesis on V is needed: with a row that occurs twice, the component is removed twice and T2 fails."""
    V = sp.Matrix([[1, 0], [1, 0]])
    kept, removed = split(sp.Matrix([1, 1]), V)
    yield differ((kept.T * removed)[0], 0, "orthogonality")


@proof("split.one_row_is_enough", theorem="T1", supports=(), extends=PER_ROW)
def one_row_is_enough() -> Iterator[Step]:
    """A split along k rows removes what k splits along one row each remove, all of the same gradient."""
    for k in (2, 3):
        for signs in combinations_with_replacement(SIGNS, k):
            c = sp.Matrix([signed(f"c{i}", sign) for i, sign in enumerate(signs)])
            V, label = sp.eye(k), f"k={k}, c {' '.join(signs)}"
            rows = sum((split(c, V[i, :])[1] for i in range(k)), start=sp.zeros(k, 1))
            yield same(split(c, V)[1], rows, label)
