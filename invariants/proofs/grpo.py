"""T16 and T17: the advantage, the policy gradient at ratio 1, K3, and the mask."""

from collections.abc import Iterator
from itertools import permutations
from typing import Any

import sympy as sp

from invariants.proofs.algebra import Expr, Matrix, differ, is_true, same
from invariants.proofs.registry import Step, proof

ANY_GROUP = "The mean is a symmetric linear function of the rewards; groups of 2 to 4 stand for all sizes."
PER_TOKEN = "The loss is a sum over tokens; vocabulary and length only lengthen sums."
DENOMINATOR = sp.Symbol("D", positive=True)  # group size x max new tokens x prompts per step


def advantages(rewards: Matrix) -> Matrix:
    """A = R - mean(R) of one group."""
    return rewards - sp.ones(*rewards.shape) * sum(rewards) / len(rewards)


def groups() -> Iterator[Matrix]:
    """Groups of 2, 3 and 4 symbolic rewards."""
    for n in (2, 3, 4):
        yield sp.Matrix(sp.symbols(f"R:{n}", real=True))


@proof(
    "grpo.advantages", theorem="T16", extends=ANY_GROUP,
    supports=("grpo.advantage", "grpo.advantage_scale", "grpo.shift", "grpo.permutation"),
)  # fmt: skip
def advantage_algebra(advantages: Any = advantages) -> Iterator[Step]:
    """Advantages of a group sum to 0, ignore a shift of the rewards, scale with them, and permute with them."""
    s, t = sp.symbols("s t", real=True)
    for R in groups():
        n, A = len(R), advantages(R)
        yield same(sum(A), 0, f"sum, {n} rewards")
        yield same(advantages(R + t * sp.ones(n, 1)), A, f"shift, {n} rewards")
        yield same(advantages(s * R), s * A, f"scale, {n} rewards")
        for order in permutations(range(n)):
            permuted = sp.Matrix([R[i] for i in order])
            yield same(advantages(permuted), sp.Matrix([A[i] for i in order]), f"permutation {order}")


@proof(
    "grpo.equal_rewards", theorem="T16", supports=("grpo.zero_variance", "training.zero_variance"), extends=ANY_GROUP
)
def equal_rewards(advantages: Any = advantages) -> Iterator[Step]:
    """A group of equal rewards has advantages 0, and so no policy gradient."""
    for R in groups():
        yield same(advantages(sp.Symbol("c") * sp.ones(*R.shape)), 0 * R, f"{len(R)} equal rewards")


@proof(
    "grpo.sigma_breaks_scaling", theorem="T16", supports=("grpo.advantage_scale",), kind="counterexample",
    extends="One example is enough.",
)  # fmt: skip
def sigma_breaks_scaling() -> Iterator[Step]:
    """Divided by the group's standard deviation, advantages do not scale with the rewards."""
    for R in (sp.Matrix([0, 1]), sp.Matrix([0, 2])):
        A = advantages(R)
        yield same(sp.Matrix(A) / sp.sqrt(sum(a**2 for a in A) / 2), sp.Matrix([-1, 1]), f"rewards {list(R)}")
    yield differ(advantages(sp.Matrix([0, 2]))[1], advantages(sp.Matrix([0, 1]))[1], "Dr.GRPO's")


LOGITS = sp.symbols("z:3", real=True)
TOTAL = sum(sp.exp(z) for z in LOGITS)


def log_prob(token: int, logits: Any = LOGITS) -> Expr:
    """log softmax, a vocabulary of three."""
    return logits[token] - sp.log(sum(sp.exp(z) for z in logits))


EPSILON = sp.Rational(1, 5)


def smaller(a: Expr, b: Expr) -> Expr:
    """min(a, b) where it is known which one that is; raises ValueError where it isn't."""
    difference = sp.factor(a - b)
    if difference.is_nonpositive:
        return a
    if difference.is_nonnegative:
        return b
    raise ValueError(f"it is not known whether {a} is below {b}")


def surrogate(ratio: Expr, A: Expr, epsilon: Expr = EPSILON) -> Expr:
    """-min(ratio A, clip(ratio) A)."""
    clipped = smaller(-smaller(-ratio, epsilon - 1), 1 + epsilon)
    return -smaller(ratio * A, clipped * A)


@proof(
    "grpo.on_policy_gradient", theorem="T16",
    supports=("grpo.on_policy_gradient", "grpo.clipped_surrogate", "training.step_gradient"),
    extends=PER_TOKEN,
)  # fmt: skip
def on_policy_gradient(surrogate: Any = surrogate) -> Iterator[Step]:
    """Around ratio 1 the clipped surrogate is -ratio A, so its gradient is -A grad log pi = A (softmax - one hot)."""
    ratio = sp.Rational(4, 5) + sp.Rational(2, 5) / (1 + sp.Symbol("t", positive=True))  # all of the open clip range
    for A in (sp.Symbol("A", positive=True), sp.Symbol("A", negative=True)):
        yield same(surrogate(ratio, A), -ratio * A, f"inside the clip range, {A.is_positive}")
        for token in range(3):
            new_over_old = sp.exp(log_prob(token) - sp.Symbol("old", real=True))
            for i, z in enumerate(LOGITS):
                gradient = sp.diff(-new_over_old * A, z).subs(sp.Symbol("old", real=True), log_prob(token))
                expected = A * (sp.exp(z) / TOTAL - (1 if i == token else 0))
                yield is_true(sp.simplify(gradient - expected) == 0, f"token {token}, logit {i}")
    above, up = sp.Integer(2), sp.Symbol("A", positive=True)
    yield same(surrogate(above, up), -sp.Rational(6, 5) * up, "beyond the range a gain is cut off")
    yield same(surrogate(above, -up), 2 * up, "and a loss is not")


def k3(d: Expr) -> Expr:
    """exp(d) - 1 - d, d = log ref - log pi."""
    return sp.exp(d) - 1 - d


@proof(
    "grpo.k3", theorem="T16", supports=("grpo.k3",),
    extends="A function of one real number; strictly convex, it lies above its tangent 0 but where it touches it.",
)  # fmt: skip
def k3_is_nonnegative(k3: Any = k3) -> Iterator[Step]:
    """K3 >= 0, and 0 only where both log-probabilities agree; its mean under pi is the KL divergence."""
    d = sp.Symbol("d", real=True)
    yield same(k3(d).subs(d, 0), 0, "zero at 0")
    yield same(sp.diff(k3(d), d).subs(d, 0), 0, "flat at 0")
    yield is_true(sp.diff(k3(d), d, 2).is_positive, "strictly convex")
    p, q = sp.symbols("p:2", positive=True), sp.symbols("q:2", positive=True)
    ps, qs = (*p, 1 - sum(p)), (*q, 1 - sum(q))
    mean = sum(a * (b / a - 1 - sp.log(b / a)) for a, b in zip(ps, qs, strict=True))
    kl = sum(a * -sp.log(b / a) for a, b in zip(ps, qs, strict=True))
    yield is_true(sp.simplify(sp.expand(mean - kl)) == 0, "the mean is the KL divergence")


def loss(log_probs: Any, A: Any, mask: Any, denominator: Expr = DENOMINATOR) -> Expr:
    """At ratio 1, up to a constant: -sum over completions and tokens of mask A log pi, over a fixed denominator."""
    return (
        -sum(
            m * a * lp
            for row, a, weights in zip(log_probs, A, mask, strict=True)
            for lp, m in zip(row, weights, strict=True)
        )
        / denominator
    )


LOG_PROBS = [sp.symbols(f"lp{i}_:3", real=True) for i in range(4)]
WEIGHTS = sp.symbols("A:4", real=True)
MASK = [(1, 1, 1), (1, 1, 0), (1, 0, 0), (1, 1, 1)]


@proof("grpo.sources_add", theorem="T16", supports=("grpo.sources_add", "grpo.accumulation"), extends=PER_TOKEN)
def sources_add(loss: Any = loss) -> Iterator[Step]:
    """With a fixed denominator the student's and the teacher's gradient, or any micro-batches', sum to the whole's."""
    whole = loss(LOG_PROBS, WEIGHTS, MASK)
    for cut in (1, 2, 3):
        parts = [loss(LOG_PROBS[at], WEIGHTS[at], MASK[at]) for at in (slice(None, cut), slice(cut, None))]
        for lp in (lp for row in LOG_PROBS for lp in row):
            yield same(sum(sp.diff(part, lp) for part in parts), sp.diff(whole, lp), f"cut at {cut}, {lp}")


@proof(
    "grpo.own_length_does_not_add", theorem="T16", supports=("grpo.sources_add",),
    kind="counterexample", extends="One example is enough.",
)  # fmt: skip
def own_length_does_not_add() -> Iterator[Step]:
    """Divided by what was sampled, losses of parts do not sum to the whole's: each part has another denominator."""
    rows, A, mask = [(sp.Symbol("a"),), (sp.Symbol("b"),)], (1, 1), [(1,), (1,)]
    parts = sum(loss(rows[i : i + 1], A[i : i + 1], mask[i : i + 1], denominator=1) for i in (0, 1))
    whole = loss(rows, A, mask, denominator=2)
    yield differ(sp.diff(parts, sp.Symbol("a")), sp.diff(whole, sp.Symbol("a")), "the gradients")


@proof(
    "grpo.mask",
    theorem="T17",
    supports=("grpo.prompt_tokens", "grpo.padding_tokens", "grpo.end_token"),
    extends=PER_TOKEN,
)
def mask(loss: Any = loss) -> Iterator[Step]:
    """A masked token carries no gradient, in none of its logits; a token that counts, such as the end, does."""
    logits = sp.symbols("u:3", real=True), sp.symbols("v:3", real=True)
    rows = [tuple(log_prob(0, z) for z in logits)]
    total = loss(rows, (sp.Symbol("A", positive=True),), [(1, 0)])
    for counted, masked in zip(*logits, strict=True):
        yield is_true(sp.diff(total, masked) == 0, f"{masked} is masked")
        yield is_true(sp.simplify(sp.diff(total, counted)) != 0, f"{counted} counts")
