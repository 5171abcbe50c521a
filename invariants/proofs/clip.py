"""T7 and T8: one limit for everything that a step feeds its optimizers."""

from collections.abc import Iterator
from typing import Any

import sympy as sp

from invariants.proofs.algebra import BY_ROTATION, FIXED, Expr, Matrix, differ, is_true, same
from invariants.proofs.registry import Step, proof
from invariants.proofs.split import GATES, cases, split, squared

ACROSS_MODULES = "Squared norms add up over modules, and each module has its own basis; " + BY_ROTATION
ONE_EXAMPLE = "One example is enough."
G, V = sp.Matrix([3, 4]), sp.Matrix([[1, 0]])  # |g| = 5, kept (0, 4), removed (3, 0)


def norm(*parts: Matrix) -> Expr:
    """The joint 2-norm."""
    return sp.sqrt(sum(squared(part) for part in parts))


def factor(length: Expr, limit: Expr) -> Expr:
    """min(1, limit / length), where it is known which of them is larger."""
    room = sp.simplify(sp.sympify(limit) - length)
    if room.is_nonnegative:
        return sp.Integer(1)
    if room.is_negative:
        return limit / length
    raise ValueError(f"it is not known whether {length} is above {limit}")


@proof("clip.joint_norm", theorem="T7", supports=("clip.vanilla_norm", "clip.logged_norms"), extends=ACROSS_MODULES)
def joint_norm(split: Any = split) -> Iterator[Step]:
    """The joint norm of {kept, removed} over two modules is the vanilla norm, for one_sided and no_gate."""
    other = sp.Matrix(sp.symbols("h:3", real=True))  # a module without a basis
    for frame, gate, label in cases(("one_sided", "no_gate"), FIXED):
        parts = [*split(frame.g, frame.V, gate), *split(other, sp.zeros(0, 3), gate)]
        yield same(sum(map(squared, parts)), squared(frame.g) + squared(other), label)


@proof(
    "clip.before_reaches_the_limit", theorem="T8", extends=ACROSS_MODULES,
    supports=("clip.covers_both", "clip.reaches_limit", "clip.common_factor"),
)  # fmt: skip
def before_reaches_the_limit(split: Any = split) -> Iterator[Step]:
    """Clipped before the split, a gradient that is too long feeds parts of joint norm limit, scaled by one factor."""
    f, limit, length = sp.symbols("f L n", positive=True)
    for frame, gate, label in cases(("one_sided", "no_gate"), FIXED):
        fed = split(f * frame.g, frame.V, gate)
        yield same(sum(map(squared, fed)), f**2 * squared(frame.g), f"joint norm, {label}")
        for clipped, free in zip(fed, split(frame.g, frame.V, gate), strict=True):
            yield same(clipped, f * free, f"one factor, {label}")
    yield same(factor(limit + length, limit) * (limit + length), limit, "the norm of what is fed")


@proof(
    "clip.factor", theorem="T8", supports=("clip.inactive_below", "clip.takes_effect", "clip.covers_both"),
    extends="A statement about two numbers, the norm and the limit.",
)  # fmt: skip
def factor_is_one_below(factor: Any = factor) -> Iterator[Step]:
    """min(1, limit / norm) is exactly 1 up to the limit, below 1 above it, and then gives the norm limit."""
    limit, slack = sp.symbols("L s", positive=True)
    yield same(factor(limit, limit), 1, "at the limit")
    yield same(factor(limit, limit + slack), 1, "below it")
    above = factor(limit + slack, limit)
    yield is_true((1 - above).simplify().is_positive, "less than 1 above it")
    yield same(above * (limit + slack), limit, "the norm that is left")


@proof(
    "clip.parts_that_are_too_long", theorem="T8", supports=("clip.covers_both",),
    extends="The excess 4 |c|^2 + |g|^2 is at most 5 |g|^2 by Pythagoras, and reached where g lies in the span.",
)  # fmt: skip
def parts_that_are_too_long() -> Iterator[Step]:
    """Reversed, |kept|^2 + |removed|^2 = |g|^2 + 4 |c|^2, up to 5 |g|^2: the parts need a second common factor."""
    for frame, gate, label in cases(("reverse",), FIXED):
        kept, removed = split(frame.g, frame.V, gate)
        yield same(squared(kept) + squared(removed), squared(frame.g) + 4 * squared(frame.c), label)
    yield same(norm(*split(sp.Matrix([1, 0]), V, "reverse")), sp.sqrt(5), "sqrt 5 in the span")


@proof(
    "clip.second_factor", theorem="T8", supports=("clip.covers_both", "optimizer.erase_match"),
    extends="The factor is a function of g alone, which erase and route have in common, whatever the shapes.",
)  # fmt: skip
def second_factor() -> Iterator[Step]:
    """Scaling both parts by limit / (their joint norm) makes that norm the limit, for every gate and overshoot."""
    overshoot, limit = sp.symbols("o L", positive=True)
    for gate in GATES:
        kept, removed = split(G, V, gate, overshoot)
        again = limit / norm(kept, removed)
        total = sp.simplify(squared(again * kept) + squared(again * removed))
        yield same(total, limit**2, gate)


@proof(
    "clip.joint_breaks_erase_match", theorem="T8", supports=("optimizer.erase_match",), kind="counterexample",
    extends=ONE_EXAMPLE,
)  # fmt: skip
def joint_breaks_erase_match(clip: str = "joint") -> Iterator[Step]:
    """Clipped jointly after the split, erase keeps (0, 1) and route (0, 4/5): g = (3, 4), V = (1, 0), limit 1."""
    kept, removed = split(G, V)
    if clip == "joint":
        erase, route = kept * factor(norm(kept), 1), kept * factor(norm(kept, removed), 1)
    else:
        erase = route = split(G * factor(norm(G), 1), V)[0]
    yield same(erase, sp.Matrix([0, 1]), "erase")
    yield same(route, sp.Matrix([0, sp.Rational(4, 5)]), "route")
    yield differ(erase[1], route[1], "the arms")


@proof(
    "clip.separate_breaks_the_sum", theorem="T8", supports=("optimizer.keeps_sum", "clip.covers_both"),
    kind="counterexample", extends=ONE_EXAMPLE,
)  # fmt: skip
def separate_breaks_the_sum() -> Iterator[Step]:
    """Clipped separately, the parts sum to (1, 1), no multiple of g = (3, 4), and are sqrt 2 limits long."""
    kept, removed = (part * factor(norm(part), 1) for part in split(G, V))
    yield same(kept + removed, sp.Matrix([1, 1]), "the sum of the parts")
    yield differ((kept + removed).dot(sp.Matrix([4, -3])), 0, "its direction")
    yield same(norm(kept, removed), sp.sqrt(2), "the joint norm")


@proof(
    "clip.deployed_only_covers_nothing", theorem="T8", supports=("clip.covers_both",), kind="counterexample",
    extends=ONE_EXAMPLE,
)  # fmt: skip
def deployed_only_covers_nothing() -> Iterator[Step]:
    """Clipping the deployed set alone leaves the quarantine's gradient without any bound."""
    size = sp.Symbol("t", positive=True)
    kept, removed = split(sp.Matrix([size, 1]), V)
    fed = norm(kept * factor(norm(kept), 1), removed)
    yield is_true(sp.limit(fed, size, sp.oo) == sp.oo, "the joint norm grows beyond every limit")
