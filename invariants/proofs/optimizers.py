"""T9 to T11: what two states of one optimizer keep, and what AdamW does not."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import sympy as sp

from invariants.proofs.algebra import Expr, differ, frames, is_true, nonpositive, same
from invariants.proofs.registry import Step, proof
from invariants.proofs.split import split
from reference import SGD

BY_INDUCTION = (
    "Both vectors start at zero sum and equal state; if step t keeps the sum of parameters and of states, so does step "
    "t + 1. Coordinates do not meet, so r does not matter."
)
COORDINATES = "A statement about one coordinate of the split; others do not enter."


def every_sgd() -> Iterator[tuple[Any, str]]:
    """The specification's own SGD with symbols for hyperparameters: every combination of its options."""
    lr, momentum, dampening, coupled, decoupled = sp.symbols("lr momentum dampening coupled decoupled", positive=True)
    for m, d, c, w in product((0, momentum), (0, dampening), (0, coupled), (0, decoupled)):
        for nesterov in (False, True) if m else (False,):
            options = {"momentum": m, "dampening": d, "weight_decay": c, "decoupled_decay": w}
            used = [name for name, value in options.items() if value] + ["nesterov"] * nesterov
            yield SGD(lr=lr, nesterov=nesterov, **options), f"SGD with {', '.join(used) or 'nothing'}"


@dataclass(frozen=True)
class L1Decay:
    """p - lr (g + strength sign(p)): the decay that is not linear."""

    lr: Expr = 1
    strength: Expr = 1

    def start(self, p: Expr) -> dict[str, Expr]:
        """No state."""
        return {"buffer": None}

    def step(self, p: Expr, g: Expr, state: dict[str, Expr]) -> tuple[Expr, dict[str, Expr]]:
        """One step."""
        return p - self.lr * (g + self.strength * sp.sign(p)), state


def adamw_first_move(g: Expr, *, lr: Expr = 1, eps: Expr = 0) -> Expr:
    """What AdamW adds to a zero parameter in its first step: bias correction makes m = g and v = g^2."""
    b1, b2 = sp.symbols("beta1 beta2", positive=True)
    m = (1 - b1) * g / (1 - b1)
    v = (1 - b2) * g**2 / (1 - b2)
    return -lr * m / (sp.sqrt(v) + eps)


@proof("optimizer.linear_step_keeps_the_sum", theorem="T9", supports=("optimizer.keeps_sum",), extends=BY_INDUCTION)
def linear_step_keeps_the_sum(optimizers: Any = None) -> Iterator[Step]:
    """One step of SGD is linear in (gradient, parameter, state) jointly, with any of its options, so sums stay sums."""
    (p, q), (g, h), (a, b) = (sp.symbols(f"{name}:2", real=True) for name in "pgb")
    for optimizer, label in optimizers or every_sgd():
        for buffers in ((None, None, None), (a, b, a + b)):
            one, two, both = (
                optimizer.step(at, fed, {"buffer": buffer})
                for at, fed, buffer in zip((p, q, p + q), (g, h, g + h), buffers, strict=True)
            )
            yield same(one[0] + two[0], both[0], f"parameters, {label}")
            if both[1]["buffer"] is not None:
                yield same(one[1]["buffer"] + two[1]["buffer"], both[1]["buffer"], f"states, {label}")


@proof(
    "optimizer.keeps_sum_needs_linearity", theorem="T9", supports=("optimizer.keeps_sum",),
    extends="It is the converse: at r >= 2 every pair of numbers occurs, so a step that keeps all sums is additive.",
)  # fmt: skip
def every_pair_occurs() -> Iterator[Step]:
    """Every pair (x, y) with y not 0 is one coordinate of (kept, removed) for some g and V of one row."""
    x = sp.Symbol("x", real=True)
    for sign, y in ((1, sp.Symbol("y", positive=True)), (-1, sp.Symbol("y", negative=True))):
        a, b = sign * sp.Rational(3, 5), sp.Rational(4, 5)
        g = sp.Matrix([x + y, (y / a - a * (x + y)) / b])
        kept, removed = split(g, sp.Matrix([[a, b]]))
        yield same(kept[0], x, f"kept, sign {sign}")
        yield same(removed[0], y, f"removed, sign {sign}")


@proof(
    "optimizer.adamw_is_not_linear", theorem="T9", supports=("optimizer.keeps_sum",), kind="counterexample",
    extends=COORDINATES,
)  # fmt: skip
def adamw_is_not_linear(move: Any = adamw_first_move) -> Iterator[Step]:
    """AdamW's first step is lr times a sign: parts that agree move by 2 lr, parts that disagree by 0, vanilla by lr."""
    lr, size = sp.symbols("lr s", positive=True)
    yield same(move(size, lr=lr), -lr, "a positive gradient of any size")
    yield same(move(3 * size, lr=lr), -lr, "vanilla, fed 3")
    yield same(move(size, lr=lr) + move(2 * size, lr=lr), -2 * lr, "parts 1 and 2 that agree")
    yield same(move(-size, lr=lr) + move(4 * size, lr=lr), 0, "parts -1 and 4 that disagree")
    eps = sp.Symbol("eps", positive=True)
    yield same(sp.limit(move(size, lr=lr, eps=eps), eps, 0), -lr, "and with a small epsilon nearly so")


@proof(
    "optimizer.l1_decay_breaks_the_sum", theorem="T9", supports=("optimizer.keeps_sum",), kind="counterexample",
    extends=COORDINATES,
)  # fmt: skip
def l1_decay_breaks_the_sum() -> Iterator[Step]:
    """L1 decay shrinks each of two vectors by as much as it shrinks their sum: twice as much together."""
    decay = L1Decay()
    moved = [decay.step(sp.Integer(p), sp.Integer(0), {})[0] for p in (2, 2, 4)]
    yield same(moved[0] + moved[1], 2, "two vectors at 2")
    yield same(moved[2], 3, "one vector at 4")


def run(step: Any, fed: list[Any], *, seen: list[Any] | None = None) -> Expr:
    """A parameter after steps of which nothing is known but what they are functions of."""
    p, state = sp.Integer(0), sp.Symbol("s0")
    for t, g in enumerate(fed):
        p, state = step(p, g, state, None if seen is None else seen[t])
    return p


def per_parameter(p: Expr, g: Expr, state: Expr, others: Expr) -> tuple[Expr, Expr]:
    """Any optimizer whose step of a parameter knows that parameter only: uninterpreted functions."""
    return sp.Function("move")(p, g, state), sp.Function("remember")(p, g, state)


def coupled(p: Expr, g: Expr, state: Expr, others: Expr) -> tuple[Expr, Expr]:
    """An optimizer that also looks at what the quarantine was fed."""
    others = sp.Integer(0) if others is None else others
    return sp.Function("move")(p, g, state, others), sp.Function("remember")(p, g, state, others)


@proof(
    "optimizer.erase_match", theorem="T10",
    supports=("optimizer.erase_match", "optimizer.empty_module", "optimizer.per_module"),
    extends="Nothing is known of the functions: they may be any, for any length and number of steps.",
)  # fmt: skip
def erase_match(step: Any = per_parameter) -> Iterator[Step]:
    """With a state per parameter, route's deployed vector is erase's, whatever the optimizer is: equal terms."""
    kept, removed = list(sp.symbols("kept:3")), list(sp.symbols("removed:3"))
    for steps in range(1, 4):
        erase = run(step, kept[:steps])
        route = run(step, kept[:steps], seen=removed[:steps])
        yield is_true(erase == route, f"after {steps} steps")
    for frame in frames():  # a module without a basis keeps everything, so it is fed what vanilla is fed
        yield same(split(frame.g, frame.V[:0, :])[0], frame.g, f"k = 0 feeds vanilla's gradient, {frame.label}")


@proof(
    "optimizer.linear_span", theorem="T11", supports=("optimizer.span",),
    extends="Linear maps with one scalar for all coordinates carry span(V) into itself; by induction over steps.",
)  # fmt: skip
def linear_span(optimizers: Any = None) -> Iterator[Step]:
    """Under SGD with any option a quarantine and a buffer in span(V), fed what lies there, stay there."""
    v = sp.Matrix([sp.Rational(2, 7), sp.Rational(3, 7), sp.Rational(6, 7)])
    p, g, b = (sp.Symbol(name, real=True) * v for name in "pgb")
    for optimizer, label in optimizers or every_sgd():
        for buffer in (None, b):
            q, state = optimizer.step(p, g, {"buffer": buffer})
            for what, vector in (("quarantine", q), ("buffer", state["buffer"])):
                if vector is not None:
                    yield same(v * (v.T * vector), vector, f"{what}, {label}")


@proof(
    "optimizer.adamw_leaves_the_span", theorem="T11", supports=("optimizer.span",), kind="counterexample",
    extends="One example is enough.",
)  # fmt: skip
def adamw_leaves_the_span(move: Any = adamw_first_move) -> Iterator[Step]:
    """Fed removed = (3, 4), along V = (3, 4) / 5, AdamW's first step moves along (1, 1), which is not in span(V)."""
    moved = sp.Matrix([3, 4]).applyfunc(move)
    yield same(moved, -sp.ones(2, 1), "the move")
    yield differ(moved.dot(sp.Matrix([4, -3])), 0, "the part outside the span")


@proof(
    "optimizer.adamw_update_leak", theorem="T11", supports=("optimizer.update_leak", "optimizer.displacement_leak"),
    kind="counterexample", extends="One example is enough; the first update is the displacement so far.",
)  # fmt: skip
def adamw_update_leak(move: Any = adamw_first_move) -> Iterator[Step]:
    """kept = (-4, 3) has no hack-ward part along V = (3, 4) / 5, but AdamW's move on it has: lr / 5."""
    V = sp.Matrix([[3, 4]]) / 5
    kept, _ = split(sp.Matrix([-4, 3]) + 5 * V.T, V)
    yield same(kept, sp.Matrix([-4, 3]), "what is kept")
    yield nonpositive(V * kept, "its hack-ward part")
    yield same((-V * kept.applyfunc(move))[0], sp.Rational(1, 5), "the hack-ward part of the move")


@proof(
    "optimizer.decay_update_leak", theorem="T11", supports=("optimizer.update_leak",), kind="counterexample",
    extends="One example is enough.",
)  # fmt: skip
def decay_update_leak() -> Iterator[Step]:
    """Weight decay makes an update of plain SGD hack-ward: it takes back an earlier move away from the hack."""
    sgd: Any = SGD(lr=sp.Rational(1, 10), decoupled_decay=sp.Rational(1, 2))
    p = sp.Matrix([1])  # V = (1): a positive coordinate is away from the hack
    after, _ = sgd.step(p, sp.zeros(1, 1), {"buffer": None})
    yield same(p - after, sp.Matrix([sp.Rational(1, 20)]), "V(-update) without a gradient")
