"""T18: a basis from differences of gradients, one row a pair (hack minus clean)."""

from collections.abc import Iterator
from itertools import permutations, product
from typing import Any

import sympy as sp

from invariants.proofs.algebra import Expr, Matrix, differ, is_true, same
from invariants.proofs.registry import Step, proof
from invariants.proofs.split import split

D = sp.Matrix(3, 2, sp.symbols("D:6", real=True))  # three pairs in R^2
VOTES = "A vote counts signs, so three pairs with all patterns of signs stand for any odd number and any sizes."
ONE_EXAMPLE = "One example is enough."


def sign_by_vote(projections: Any) -> Expr:
    """+1 or -1 by majority; a tie is decided by the summed projection, and if that is zero the axis stays as it is."""
    votes = sum(sp.sign(p) for p in projections)
    decided = sp.sign(votes) if votes != 0 else sp.sign(sum(projections))
    return decided if decided != 0 else sp.Integer(1)


def sign_by_mean(projections: Any) -> Expr:
    """+1 or -1 by the summed projection."""
    return sp.sign(sum(projections))


def votes() -> Iterator[tuple[Expr, ...]]:
    """Projections of three pairs on an axis, of every pattern of signs and of unequal sizes."""
    sizes = (1, 2, 4)  # no signed sum of some of these is zero
    for signs in product((-1, 0, 1), repeat=3):
        if any(signs):
            yield tuple(sp.Integer(sign * size) for sign, size in zip(signs, sizes, strict=True))


@proof(
    "extraction.swapping", theorem="T18", supports=("extraction.antisymmetry",), extends=VOTES,
)  # fmt: skip
def swapping(sign: Any = sign_by_vote) -> Iterator[Step]:
    """Swapping hack and clean, D -> -D, leaves the axes as they are and flips every vote, so it flips V."""
    yield same((-D).T * (-D), D.T * D, "the axes, eigenvectors of D^T D")
    for projections in votes():
        yield same(sign([-p for p in projections]), -sign(projections), f"projections {projections}")


@proof("extraction.permuting", theorem="T18", supports=("extraction.permutation",), extends=VOTES)
def permuting(sign: Any = sign_by_vote) -> Iterator[Step]:
    """Permuting pairs changes neither the axes nor a vote."""
    for order in permutations(range(3)):
        permuted = sp.Matrix([D.row(i) for i in order])
        yield same(permuted.T * permuted, D.T * D, f"the axes, {order}")
        for projections in votes():
            yield same(sign([projections[i] for i in order]), sign(projections), f"{projections} as {order}")


@proof(
    "extraction.axis_sign",
    theorem="T18",
    supports=("extraction.orientation", "extraction.tie", "extraction.run_orientation"),
    extends=VOTES,
)
def axis_sign(sign: Any = sign_by_vote) -> Iterator[Step]:
    """Orientation does not depend on the sign that the decomposition gave an axis, and a second one changes nothing."""
    for projections in votes():
        turned = [-p for p in projections]
        yield same(sign(turned) * -1, sign(projections), f"the other sign, {projections}")
        oriented = [sign(projections) * p for p in projections]
        yield same(sign(oriented), 1, f"oriented twice, {projections}")
        majority = sum(map(sp.sign, oriented))
        yield is_true(majority >= 0, f"most are on the positive side, {projections}")
        if majority == 0:
            yield is_true(sum(oriented) > 0, f"a tie goes to the sum, {projections}")


@proof(
    "extraction.outlier", theorem="T18", supports=("extraction.orientation", "extraction.run_orientation"),
    kind="counterexample", extends=ONE_EXAMPLE,
)  # fmt: skip
def outlier(sign: Any = sign_by_mean) -> Iterator[Step]:
    """Oriented by the mean, one outlier pair turns an axis against all others: projections 1, 1 and -5."""
    projections = [sp.Integer(p) for p in (1, 1, -5)]
    yield same(sign_by_vote(projections), 1, "the vote")
    yield same(sign(projections), -1, "the sign of the mean")


@proof(
    "extraction.orthogonal_axes", theorem="T18", supports=("extraction.orthonormal", "extraction.run_orthonormal"),
    extends="For any symmetric G: (l1 - l2) u v = 0 where G u = l1 u and G v = l2 v; equal l may be orthogonalised.",
)  # fmt: skip
def orthogonal_axes() -> Iterator[Step]:
    """Right singular vectors of unequal singular values are orthogonal: (D^T D) is symmetric."""
    u, v = (sp.Matrix(sp.symbols(f"{name}:2", real=True)) for name in "uv")
    G = D.T * D
    yield same((u.T * (G * v))[0], ((G * u).T * v)[0], "u G v = G u v")
    first, second = sp.symbols("l1 l2", real=True)
    yield same((u.T * (second * v) - (first * u).T * v)[0], (second - first) * u.dot(v), "(l2 - l1) u v")


def kept_axes(values: Any, floor: Expr) -> set[Any]:
    """The axes whose singular value reaches the floor."""
    return {i for i, value in enumerate(values) if value >= floor}


@proof(
    "extraction.noise_floor", theorem="T18", supports=("extraction.noise_floor", "extraction.run_floor"),
    extends="{s >= a} contains {s >= b} where a <= b, by transitivity; the values and floors here are in all orders.",
)  # fmt: skip
def noise_floor(kept_axes: Any = kept_axes) -> Iterator[Step]:
    """A higher floor keeps no axis that a lower one drops."""
    for values in permutations((1, 2, 3)):
        for low in range(5):
            for high in range(low, 5):
                yield is_true(kept_axes(values, high) <= kept_axes(values, low), f"{values}, floors {low} and {high}")


@proof(
    "extraction.basis_matters", theorem="T18", supports=("extraction.orthonormal", "extraction.run_orthonormal"),
    kind="counterexample", extends=ONE_EXAMPLE,
)  # fmt: skip
def basis_matters(gate: Any = "one_sided") -> Iterator[Step]:
    """One-sided depends on the basis of the span and not only on the span: two bases of R^2 remove (1, 0) and less."""
    g, turned = sp.Matrix([1, -2]), sp.Matrix([[3, 4], [-4, 3]]) / 5
    removed: list[Matrix] = [split(g, V, gate)[1] for V in (sp.eye(2), turned)]
    yield same(removed[0], sp.Matrix([1, 0]), "along the axes")
    yield differ(removed[1][0], removed[0][0], "along a turned basis of the same span")
