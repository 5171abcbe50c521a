"""T6 and T20: what the split does to noise, and how rectified noise adds up."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import sympy as sp

from invariants.proofs.algebra import BY_ROTATION, SIGNS, Expr, Matrix, is_true, relu, same, signed
from invariants.proofs.registry import Step, proof
from invariants.proofs.spaces import N, V, in_displacement_space, moves
from invariants.proofs.split import split
from reference.split import MemorylessGate as Gate

K, R = sp.symbols("k r", positive=True, integer=True)
MU = sp.Symbol("mu", real=True)
SIGMA, BETA = sp.symbols("sigma beta", positive=True)
X = sp.Symbol("x", real=True)


def expected(f: Expr, *, mu: Expr = MU, lower: Expr = -sp.oo) -> Expr:
    """E f(x) of x ~ N(mu, sigma^2), integrated from `lower` on."""
    density = sp.exp(-((X - mu) ** 2) / (2 * SIGMA**2)) / (SIGMA * sp.sqrt(2 * sp.pi))
    return sp.simplify(sp.integrate(f * density, (X, lower, sp.oo)))


@proof(
    "noise.shares", theorem="T6", supports=("split.null_baseline", "split.cos_pre"),
    extends=(
        "k and r are symbols. An isotropic g has |g| independent of its direction, so that moments of shares are "
        "ratios of moments; c_i and -c_i are equally likely whatever the other signs, so relu lets half through."
    ),
)  # fmt: skip
def shares(gaussian: Any = None) -> Iterator[Step]:
    """E |removed|^2/|g|^2 is k/2r one-sided, k/r without a gate; second moments are as the suite has them."""
    two, four = gaussian or (expected(X**2, mu=0), expected(X**4, mu=0))
    norm_four = R * four + R * (R - 1) * two**2  # E |g|^4
    first, square, mixed = two / (R * two), four / norm_four, two**2 / norm_four
    yield same(square, 3 / (R * (R + 2)), "E c_i^4 / |g|^4")
    yield same(mixed, 1 / (R * (R + 2)), "E c_i^2 c_j^2 / |g|^4")
    yield same(R * square + R * (R - 1) * mixed, 1, "the shares of all axes sum to 1")
    yield same(K * first, K / R, "the share without a gate")
    yield same(K * first / 2, K / (2 * R), "the share one-sided")
    second = K * square + K * (K - 1) * mixed
    yield same(second, (3 * K + K * (K - 1)) / (R * (R + 2)), "its second moment without a gate")
    halved = K * square / 2 + K * (K - 1) * mixed / 4
    yield same(halved, (sp.Rational(3, 2) * K + K * (K - 1) / 4) / (R * (R + 2)), "its second moment one-sided")
    yield same(expected(X**2, mu=0, lower=0), expected(X**2, mu=0) / 2, "relu lets half of a square through")
    yield same(expected(X**4, mu=0, lower=0), expected(X**4, mu=0) / 2, "and half of a fourth power")


@proof(
    "noise.rectified_mean", theorem="T20", supports=("optimizer.drift_gauge", "optimizer.noise_rectified"),
    extends="One coefficient, any axis.",
)  # fmt: skip
def rectified_mean() -> Iterator[Step]:
    """E relu(c) = mu Phi(mu/sigma) + sigma phi(mu/sigma) for c ~ N(mu, sigma^2); at mu = 0 it is sigma/sqrt(2 pi)."""
    z = MU / SIGMA
    Phi, phi = (1 + sp.erf(z / sp.sqrt(2))) / 2, sp.exp(-(z**2) / 2) / sp.sqrt(2 * sp.pi)
    formula = MU * Phi + SIGMA * phi
    mean = expected(X, lower=0)
    yield Step("the integral is the formula", sp.simplify((mean - formula).rewrite(sp.erf)) == 0, f"it is {mean}")
    yield is_true(sp.simplify(sp.diff(formula, MU) - Phi) == 0, "its derivative in mu is Phi")
    at_zero = SIGMA / sp.sqrt(2 * sp.pi)
    yield same(sp.simplify(formula.subs(MU, 0)), at_zero, "its value at 0")
    yield is_true(at_zero.is_positive, "which is not 0")
    yield same(expected(X, mu=0), 0, "without a gate there is no bias")
    rms = sp.sqrt(expected(X**2, mu=0, lower=0))
    yield same(sp.simplify(at_zero / rms), 1 / sp.sqrt(sp.pi), "mean over root mean square, whatever sigma is")


def in_gradient_space(gradients: list[Matrix], lr: Expr, split: Any = split) -> tuple[Matrix, Matrix]:
    """Where SGD on each part ends, from zero."""
    parts = [split(g, V) for g in gradients]
    kept, removed = (sum((pair[i] for pair in parts), start=sp.zeros(3, 1)) for i in (0, 1))
    return -lr * kept, -lr * removed


@proof("noise.ratchet", theorem="T20", supports=("optimizer.no_ratchet", "optimizer.drift_gauge"), extends=BY_ROTATION)
def ratchet(split: Any = split) -> Iterator[Step]:
    """On noise that cancels, +g then -g, gradient space moves the quarantine by -lr |c| along V and the deployed vector
    by +lr |c|; displacement space returns to its start."""
    lr = sp.Symbol("lr", positive=True)
    for signs in product(SIGNS, repeat=2):
        g, label = moves("c", signs), " ".join(signs)
        size = (V * g).applyfunc(sp.simplify).applyfunc(lambda c: relu(c) + relu(-c))
        deployed, quarantine = in_gradient_space([g, -g], lr, split)
        yield same(V * quarantine, -lr * size, f"quarantine, {label}")
        yield same(V * deployed, lr * size, f"deployed, {label}")
        yield same(N.T * deployed, sp.zeros(1, 1), f"outside the span, {label}")
        for part in in_displacement_space(sp.zeros(3, 1), -lr * g + lr * g, split=split):
            yield same(part, sp.zeros(3, 1), f"displacement space, {label}")


@proof(
    "noise.growth", theorem="T20", supports=("optimizer.no_ratchet", "optimizer.noise_total"),
    extends="The sum of t independent N(0, sigma^2) is N(0, t sigma^2); one coefficient, any axis, any t.",
)  # fmt: skip
def growth() -> Iterator[Step]:
    """After t steps of noise gradient space has drifted by lr sigma t/sqrt(2 pi), displacement space by lr sigma
    sqrt(t/2 pi); rectifying a momentum average has sqrt((1 - beta)/(1 + beta)) of the bias."""
    lr, t = sp.symbols("lr t", positive=True)
    mean = expected(X, mu=0, lower=0)  # of one rectified coefficient
    yield same(
        sp.simplify(lr * mean.subs(SIGMA, sp.sqrt(t) * SIGMA)), lr * SIGMA * sp.sqrt(t / (2 * sp.pi)), "integral"
    )
    yield same(lr * t * mean, lr * t * SIGMA / sp.sqrt(2 * sp.pi), "integrated rectification")
    i = sp.Symbol("i", integer=True, nonnegative=True)
    weights = (
        sp.summation(sp.Symbol("q") ** i, (i, 0, sp.oo)).args[0][0].subs(sp.Symbol("q"), BETA**2) * (1 - BETA) ** 2
    )
    yield same(weights, (1 - BETA) / (1 + BETA), "variance of (1 - beta) sum beta^i c_i, relative to one c")
    share = sp.sqrt(weights).subs(BETA, sp.Rational(9, 10))
    yield is_true(abs(share - sp.Rational(23, 100)) < sp.Rational(1, 200), "0.23 at beta = 0.9")


@proof(
    "noise.linear_gates_do_not_drift", theorem="T20", supports=("optimizer.no_ratchet", "optimizer.noise_drift"),
    extends="The parts are linear in g, so that noise of mean zero has parts of mean zero, whatever its distribution.",
)  # fmt: skip
def linear_gates_do_not_drift(gate: Gate = "no_gate") -> Iterator[Step]:
    """With no_gate what +g and -g add up to is zero in both parts."""
    for signs in product(SIGNS, repeat=1):
        g = signed("c", signs[0]) * V[0, :].T + sp.Symbol("m", real=True) * N
        for up, down in zip(split(g, V[:1, :], gate), split(-g, V[:1, :], gate), strict=True):
            yield same(up + down, sp.zeros(3, 1), signs[0])


def past_alone(past: Expr, c: Expr) -> Expr:
    """What decides whether the predictable gate is open."""
    return past


@proof(
    "noise.past_gates_do_not_drift", theorem="T20", supports=("optimizer.noise_drift",),
    extends="Given the past, of which m is the running mean; by the tower rule the mean of all steps is 0 too.",
)  # fmt: skip
def past_gates_do_not_drift(decides: Any = past_alone) -> Iterator[Step]:
    """What the predictable gate keeps of c ~ N(0, sigma^2) has mean 0, whichever way the past has decided."""
    strength, m = sp.Symbol("s", positive=True), sp.Symbol("m", positive=True)
    for past in (m, -m, sp.Integer(0)):
        decided = decides(past, X)
        kept = X - strength * sp.Piecewise((X, decided > 0), (0, True))
        yield same(expected(kept, mu=0), 0, f"running mean {past}")


@proof(
    "noise.a_total_is_split_once", theorem="T20", supports=("optimizer.noise_total",),
    extends="C is what all steps add up to; one axis, any gate that takes or leaves what is there.",
)  # fmt: skip
def a_total_is_split_once(gates: tuple[Any, ...] = (relu, lambda c: c, lambda c: 0 * c)) -> Iterator[Step]:
    """C - s gate(C) lies between C - s relu(C) and C + s relu(-C), of means -+s sigma/sqrt(2 pi)."""
    s = sp.Symbol("s", positive=True)
    for sign in SIGNS:
        C = signed("c", sign)
        least, most = C - s * relu(C), C + s * relu(-C)
        for number, gate in enumerate(gates):
            kept = C - s * gate(C)
            yield is_true(sp.simplify(kept - least).is_nonnegative, f"at least, gate {number}, {sign}")
            yield is_true(sp.simplify(most - kept).is_nonnegative, f"at most, gate {number}, {sign}")
    yield same(-s * expected(X, mu=0, lower=0), -s * SIGMA / sp.sqrt(2 * sp.pi), "the mean of the least")
