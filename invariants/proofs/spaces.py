"""T12 and T12': one optimizer at the combined point, whose update or displacement is split."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import sympy as sp

from invariants.proofs.algebra import BY_ROTATION, SIGNS, Expr, Matrix, differ, nonpositive, same, signed
from invariants.proofs.optimizers import run
from invariants.proofs.registry import Step, proof
from invariants.proofs.split import split

V = sp.Matrix([[2, 3, 6], [3, -6, 2]]) / 7  # two rows of a rational rotation
N = sp.Matrix([6, 2, -3]) / 7  # the axis that is left
ANY_UPDATE = (
    "Nothing is asked of the updates, so they may be those of any optimizer that moves parameters in step() only; the "
    "sum over steps is an induction. " + BY_ROTATION
)


def moves(name: str, signs: tuple[str, ...]) -> Matrix:
    """Every vector whose coefficients along V have these signs; minus an update, or minus a displacement."""
    c = sp.Matrix([signed(f"{name}{i}", sign) for i, sign in enumerate(signs)])
    return V.T * c + sp.Symbol(f"{name}n", real=True) * N


def two_steps() -> Iterator[tuple[list[Matrix], str]]:
    """Two updates of the optimizer's own point, all patterns of signs."""
    for first in product(SIGNS, repeat=2):
        for second in product(SIGNS, repeat=2):
            yield [-moves("a", first), -moves("b", second)], f"{' '.join(first)}, then {' '.join(second)}"


def in_update_space(start: Matrix, updates: list[Matrix], split: Any = split) -> Iterator[tuple[Matrix, Matrix]]:
    """(deployed, quarantine) after each step: every update is split."""
    deployed, quarantine = start, sp.zeros(3, 1)
    for update in updates:
        kept, removed = split(-update, V)
        deployed, quarantine = deployed - kept, quarantine - removed
        yield deployed, quarantine


def in_displacement_space(start: Matrix, displacement: Matrix, basis: Matrix = V, split: Any = split) -> Any:
    """(deployed, quarantine) where everything learned so far is split."""
    kept, removed = split(-displacement, basis)
    return start - kept, -removed


START = sp.Matrix(sp.symbols("d:3", real=True))


@proof(
    "optimizer.update_space", theorem="T12", extends=ANY_UPDATE,
    supports=(
        "optimizer.keeps_sum", "optimizer.span", "optimizer.update_leak", "optimizer.displacement_leak",
        "optimizer.refresh_update_leak",
    ),
)  # fmt: skip
def update_space(split: Any = split) -> Iterator[Step]:
    """In update space the sum is vanilla's, the quarantine is in span(V), and no update of deployed is hack-ward."""
    for updates, label in two_steps():
        before, point = START, START
        for update, (deployed, quarantine) in zip(updates, in_update_space(START, updates, split), strict=True):
            point = point + update
            yield same(deployed + quarantine, point, f"sum, {label}")
            yield same(V.T * (V * quarantine), quarantine, f"span, {label}")
            yield nonpositive(-V * (deployed - before), f"update, {label}")
            yield nonpositive(-V * (deployed - START), f"displacement, {label}")
            before = deployed


@proof(
    "optimizer.displacement_space", theorem="T12'", extends=ANY_UPDATE,
    supports=("optimizer.keeps_sum", "optimizer.span", "optimizer.displacement_leak", "optimizer.no_ratchet"),
)  # fmt: skip
def displacement_space(split: Any = split) -> Iterator[Step]:
    """In displacement space the sum is vanilla's, the quarantine in span(V), deployed never hack-ward of its start."""
    for signs in product(SIGNS, repeat=2):
        label, displacement = " ".join(signs), -moves("t", signs)
        deployed, quarantine = in_displacement_space(START, displacement, split=split)
        yield same(deployed + quarantine, START + displacement, f"sum, {label}")
        yield same(V.T * (V * quarantine), quarantine, f"span, {label}")
        yield nonpositive(-V * (deployed - START), f"displacement, {label}")
        for own, vanillas in zip(V * (deployed - START), V * displacement, strict=True):
            yield same(own * (own - vanillas), 0, f"on each axis as far as vanilla or not at all, {label}")


@proof(
    "optimizer.displacement_survives_a_refresh", theorem="T12'", extends=ANY_UPDATE,
    supports=("optimizer.refresh_span", "optimizer.refresh_displacement_leak"),
)  # fmt: skip
def displacement_survives_a_refresh() -> Iterator[Step]:
    """After a refresh the quarantine lies in the span of the new basis at the next step, since all is split again."""
    fresh = sp.Matrix([[1, 2, 2]]) / 3
    for sign in SIGNS:
        c = signed("c", sign)
        displacement = -(c * fresh.T + sp.Symbol("m", real=True) * sp.Matrix([2, 1, -2]) / 3)
        deployed, quarantine = in_displacement_space(START, displacement, fresh)
        yield same(fresh.T * (fresh * quarantine), quarantine, f"span, {sign}")
        yield same(deployed + quarantine, START + displacement, f"sum, {sign}")
        yield nonpositive(-fresh * (deployed - START), f"displacement, {sign}")


@proof(
    "optimizer.one_point_erase_match", theorem="T12", supports=("optimizer.erase_match",),
    extends="Nothing is known of the functions, so they may be any, on vectors of any length, for any number of steps.",
)  # fmt: skip
def one_point_erase_match(erase_sees: Any = None) -> Iterator[Step]:
    """In update and displacement space erase's optimizer runs at the unsplit point too, so its updates are route's."""

    def step(p: Expr, g: Expr, state: Expr, others: Expr) -> tuple[Expr, Expr]:
        return sp.Function("move")(p, g, state), sp.Function("remember")(p, g, state)

    g = list(sp.symbols("g:3"))
    for steps in range(1, 4):
        route, erase = run(step, g[:steps]), run(step, (erase_sees or g)[:steps])
        yield Step(f"the same point after {steps} steps", bool(route == erase), f"{erase}")


@proof(
    "optimizer.post_hoc_projection", theorem="T12'", extends=ANY_UPDATE, supports=("optimizer.displacement_leak",),
)  # fmt: skip
def post_hoc_projection() -> Iterator[Step]:
    """With a fixed V, route in displacement space ends where vanilla training followed by one split ends."""
    first = sp.Matrix(sp.symbols("u:3", real=True))
    for signs in product(SIGNS, repeat=2):
        total = -moves("t", signs)
        point = (START + first) + (total - first)  # two updates, of which only the sum has known signs
        kept, removed = split(-(point - START), V)
        for part, after in zip(in_displacement_space(START, total), (START - kept, -removed), strict=True):
            yield same(part, after, " ".join(signs))


@proof(
    "optimizer.displacement_updates_can_leak", theorem="T12'", supports=("optimizer.update_leak",),
    kind="counterexample", extends="One example is enough; it lives in the span of one row.",
)  # fmt: skip
def displacement_updates_can_leak() -> Iterator[Step]:
    """In displacement space an update can be hack-ward: from 1 away from the hack back to the start."""
    row = sp.Matrix([[1]])
    away, back = (in_displacement_space(sp.zeros(1, 1), sp.Matrix([x]), row)[0] for x in (1, 0))
    yield same(-row * (away - sp.zeros(1, 1)), sp.Matrix([-1]), "the first update is not")
    yield differ((-row * (back - away))[0], 0, "the second update")
    yield same((-row * (back - away))[0], 1, "its hack-ward part")
