"""Float lemmas: statements about every value of a binary floating-point format, subnormals included, decided by z3.

A statement x <= b about an exact difference x = a - c is put in the format itself: x <= b for a representable b if
and only if x, rounded upward, is at most b. 2 u max is max with a smaller exponent. Where that is no float, since it
lies below the normal range, it is rounded toward zero, which changes nothing: there x and all floats are multiples of
the smallest subnormal.

z3 is imported when a lemma runs. A violation that it finds is checked once more by torch, in the dtype.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from invariants.proofs.registry import Step, proof


class SolverMissingError(RuntimeError):
    """z3 is not installed."""


def solver() -> Any:
    """The module z3; raises SolverMissingError, which says how to get it."""
    try:
        import z3
    except ImportError as error:
        raise SolverMissingError(
            "z3 is not installed; `pip install 'projected-grpo[proofs]'` brings it for the float lemmas."
        ) from error
    return z3


def solver_version() -> str | None:
    """z3's version, or None where it is not installed."""
    try:
        return str(solver().get_version_string())
    except SolverMissingError:
        return None


# Floats into bits, bits into clauses: six times as fast on these lemmas as the solver that z3 picks.
TACTICS = (
    "simplify", "propagate-values", "fpa2bv", "propagate-values", "simplify", "solve-eqs", "bit-blast", "sat",
)  # fmt: skip
TIMEOUT_MS = 3_600_000  # a last resort; the runner ends what it runs in a process of its own much earlier


@dataclass(frozen=True)
class Format:
    """A binary format: widths of exponent and significand (with its hidden bit), and torch's name for it."""

    name: str
    exponent: int
    precision: int

    @property
    def dtype(self) -> torch.dtype:
        """torch's dtype of this format."""
        dtype: torch.dtype = getattr(torch, self.name)
        return dtype

    @property
    def unit_roundoff(self) -> float:
        """Half the distance from 1 to the next number."""
        return float(2.0**-self.precision)


BFLOAT16, FLOAT16, FLOAT32 = Format("bfloat16", 8, 8), Format("float16", 5, 11), Format("float32", 8, 24)
FORMATS = (BFLOAT16, FLOAT16, FLOAT32)


class Floats:
    """Symbols, operations and questions in one format; rounding is to nearest, ties to even, unless it is said."""

    def __init__(self, form: Format) -> None:
        self.z3, self.form = solver(), form
        self.sort = self.z3.FPSort(form.exponent, form.precision)
        self.near, self.up, self.zero = self.z3.RNE(), self.z3.RTP(), self.z3.RTZ()
        self.constraints: list[Any] = []

    def symbol(self, name: str) -> Any:
        """Any finite float."""
        return self.finite(self.z3.FP(name, self.sort))

    def finite(self, x: Any) -> Any:
        """x, with the hypothesis that it does not overflow."""
        self.constraints.append(self.z3.Not(self.z3.Or(self.z3.fpIsNaN(x), self.z3.fpIsInf(x))))
        return x

    @property
    def width(self) -> int:
        """How many bits a float has."""
        return self.form.exponent + self.form.precision

    def bits(self, name: str, value: Any = None) -> tuple[Any, Any]:
        """Any finite float, or the one that equals `value`, as its bits and as itself; bits are quick to compare."""
        bits = self.z3.BitVec(name, self.width)
        x = self.finite(self.z3.fpBVToFP(bits, self.sort))
        if value is not None:
            self.constraints.append(x == value)
        return bits, x

    def value(self, x: float) -> Any:
        """A constant."""
        return self.z3.FPVal(x, self.sort)

    def add(self, a: Any, b: Any) -> Any:
        """fl(a + b), without overflow."""
        return self.finite(self.z3.fpAdd(self.near, a, b))

    def sub(self, a: Any, b: Any) -> Any:
        """fl(a - b), without overflow."""
        return self.finite(self.z3.fpSub(self.near, a, b))

    def mul(self, a: Any, b: Any) -> Any:
        """fl(a b), without overflow."""
        return self.finite(self.z3.fpMul(self.near, a, b))

    def relu(self, x: Any) -> Any:
        """x above zero, zero elsewhere."""
        return self.z3.If(self.z3.fpGT(x, self.value(0.0)), x, self.value(0.0))

    def largest(self, *values: Any) -> Any:
        """The largest |x|."""
        top, *rest = map(self.z3.fpAbs, values)
        for x in rest:
            top = self.z3.If(self.z3.fpGEQ(top, x), top, x)
        return top

    def off_by_at_most(self, a: Any, b: Any, bound: Any) -> Any:
        """|a - b| <= bound, of the exact difference."""
        upward = (self.z3.fpSub(self.up, a, b), self.z3.fpSub(self.up, b, a))
        return self.z3.And(*(self.z3.fpLEQ(difference, bound) for difference in upward))

    def violation(self, statement: Any, *hypotheses: Any) -> dict[str, float] | None:
        """Values that meet all hypotheses and break the statement; None if there are none, which proves it."""
        z3 = self.z3
        question = z3.Then(*TACTICS).solver()
        question.set("timeout", TIMEOUT_MS)
        question.add(*self.constraints, *hypotheses, z3.Not(statement))
        answer = question.check()
        if answer == z3.unsat:
            return None
        if answer != z3.sat:
            raise TimeoutError(f"z3 gave no answer: {question.reason_unknown()}")
        model = question.model()
        return {str(d): float(z3.simplify(z3.fpToReal(self._as_float(model[d]))).as_fraction()) for d in model.decls()}

    def _as_float(self, value: Any) -> Any:
        return self.z3.fpBVToFP(value, self.sort) if self.z3.is_bv(value) else value

    def always(self, statement: Any, *hypotheses: Any, what: str) -> Step:
        """The statement holds for every value; the step shows values that break it, if there are any."""
        broken = self.violation(statement, *hypotheses)
        return Step(f"{what}, {self.form.name}", broken is None, f"not at {broken}")


def lemma(
    name: str, theorem: str, supports: tuple[str, ...], *,
    slow: tuple[Format, ...] = (), formats: tuple[Format, ...] = FORMATS,
) -> Callable[[Callable[..., Iterator[Step]]], Callable[..., Iterator[Step]]]:  # fmt: skip
    """Registers an argument about Floats as one proof for each format."""

    def register(argument: Callable[..., Iterator[Step]]) -> Callable[..., Iterator[Step]]:
        statement = " ".join((argument.__doc__ or "").split())
        for form in formats:

            def of_format(*args: Any, form: Format = form, **kwargs: Any) -> Iterator[Step]:
                yield from argument(Floats(form), *args, **kwargs)

            proof(
                f"{name}.{form.name}", theorem=theorem, supports=supports, kind="float lemma", slow=form in slow,
                extends=f"Elementwise, so for vectors of any length; every value of {form.name}.", statement=statement,
            )(of_format)  # fmt: skip
        return argument

    return register


def excess_and_largest(f: Floats) -> tuple[Any, Any]:
    """total - g, rounded upward, and the bits of max(|g|, |removed|, |kept|).

    An upper bound of total - g is one of |total - g|: rounding is odd, so that -g and -removed give g - total.
    """
    (g_bits, g), (removed_bits, removed) = f.bits("g"), f.bits("removed")
    kept_bits, kept = f.bits("kept", f.sub(g, removed))
    sizes = [bits & ((1 << f.width - 1) - 1) for bits in (g_bits, removed_bits, kept_bits)]
    largest = functools.reduce(lambda a, b: f.z3.If(f.z3.UGT(b, a), b, a), sizes)
    return f.z3.fpSub(f.up, f.add(kept, removed), g), largest


@lemma("float.conservation", "T1", ("split.conservation",), slow=FORMATS)
def conservation(f: Floats, doublings: int = 1) -> Iterator[Step]:
    """kept = fl(g - removed), total = fl(kept + removed): |total - g| <= 2 u max(|g|, |removed|, |kept|), where that is
    a normal number."""
    excess, largest = excess_and_largest(f)
    fraction, lower = f.form.precision - 1, f.form.precision - doublings  # 2^doublings u = 2^-lower
    normal = f.z3.UGT(f.z3.LShR(largest, fraction), lower)
    bound = f.z3.fpBVToFP(largest - (lower << fraction), f.sort)
    yield f.always(f.z3.fpLEQ(excess, bound), normal, what=f"{2**doublings} u max bounds the error")


@lemma("float.conservation_below", "T1", ("split.conservation",), slow=FORMATS)
def conservation_below(f: Floats, halvings: int = 0) -> Iterator[Step]:
    """The same where 2 u max lies below the normal range, down to the smallest subnormal."""
    excess, largest = excess_and_largest(f)
    precision = f.form.precision
    exponent, hidden = f.z3.LShR(largest, precision - 1), 1 << precision - 1
    units = f.z3.LShR(largest & (hidden - 1) | hidden, precision - exponent + halvings)  # of the smallest subnormal
    bound = f.z3.fpBVToFP(f.z3.If(exponent == 0, 0, units), f.sort)
    yield f.always(f.z3.fpLEQ(excess, bound), f.z3.ULT(exponent, precision), what="2 u max bounds the error below")


@lemma("float.conservation_is_sharp", "T1", ("split.conservation",), slow=(FLOAT32,))
def sharp(f: Floats) -> Iterator[Step]:
    """The bound of conservation is needed: with u max instead of 2 u max there are values that break it."""
    g, removed = f.symbol("g"), f.symbol("removed")
    kept = f.sub(g, removed)
    total = f.add(kept, removed)
    bound = f.z3.fpMul(f.zero, f.value(f.form.unit_roundoff), f.largest(g, removed, kept))
    u = f.form.unit_roundoff
    # A corner in which some lie, so that the search is short: any violation refutes.
    near = [
        f.z3.And(f.z3.fpGT(x, f.value(low)), f.z3.fpLT(x, f.value(2 * low))) for x, low in ((g, 1), (-removed, 0.5))
    ]
    found = f.violation(f.off_by_at_most(total, g, bound), *near)
    yield Step("values that break u max", found is not None)
    assert found is not None
    at, away = (torch.tensor(found[name], dtype=f.form.dtype) for name in ("g", "removed"))
    rest = at - away
    error = (rest + away).double() - at.double()
    most = u * max(abs(float(x)) for x in (at, away, rest))
    yield Step(f"torch agrees at {found}", float(error.abs()) > most, f"{float(error)} is within {most}")


@lemma("float.exact_remainder", "T1'", ("split.conservation",), slow=FORMATS)
def exact_remainder(f: Floats, hypothesis: bool = True) -> Iterator[Step]:
    """Where |removed| <= |g|, removed' = fl(g - kept) with kept = fl(g - removed) adds up: fl(kept + removed') = g."""
    g, removed = f.symbol("g"), f.symbol("removed")
    kept = f.sub(g, removed)
    small = f.z3.fpLEQ(f.z3.fpAbs(removed), f.z3.fpAbs(g))
    total = f.add(kept, f.sub(g, kept))
    yield f.always(f.z3.fpEQ(total, g), *([small] if hypothesis else []), what="the sum is exact")


@lemma("float.power_of_two", "T5", ("split.homogeneity",), slow=FORMATS)
def power_of_two(f: Floats, factor: float = 2.0) -> Iterator[Step]:
    """The split of 2 g is twice the split of g, bit for bit within the normal range: sums and gates double exactly."""
    g, removed, two = f.symbol("g"), f.symbol("removed"), f.value(factor)
    kept = f.sub(g, removed)
    tiny = f.value(float(torch.finfo(f.form.dtype).tiny))
    normal = [f.z3.Or(f.z3.fpGEQ(f.z3.fpAbs(x), tiny), f.z3.fpIsZero(x)) for x in (g, removed, kept)]
    doubled = f.sub(f.mul(two, g), f.mul(two, removed))
    yield f.always(f.z3.fpEQ(doubled, f.mul(two, kept)), *normal, what="kept doubles")
    yield f.always(f.z3.fpEQ(f.relu(f.mul(two, g)), f.mul(two, f.relu(g))), what="the gate commutes with doubling")


@lemma("float.gate", "T3", ("split.one_sided",))
def gate(f: Floats) -> Iterator[Step]:
    """relu is exact: what it lets through is c itself or zero, never longer than c and never negative."""
    c = f.symbol("c")
    through = f.relu(c)
    yield f.always(f.z3.Or(f.z3.fpEQ(through, c), f.z3.fpIsZero(through)), what="c or zero")
    yield f.always(f.z3.fpLEQ(f.z3.fpAbs(through), f.z3.fpAbs(c)), what="never longer")
    yield f.always(f.z3.fpGEQ(through, f.value(0.0)), what="never negative")


@lemma("float.clip", "T8", ("clip.covers_both", "clip.inactive_below"), formats=(BFLOAT16, FLOAT16))
def clip(f: Floats, most: float = 1.0) -> Iterator[Step]:
    """A factor in [0, 1] lengthens no coordinate, |fl(g f)| <= |g|, and the factor 1 changes none."""
    g, factor = f.symbol("g"), f.symbol("factor")
    unit = (f.z3.fpGEQ(factor, f.value(0.0)), f.z3.fpLEQ(factor, f.value(most)))
    yield f.always(f.z3.fpLEQ(f.z3.fpAbs(f.mul(g, factor)), f.z3.fpAbs(g)), *unit, what="no coordinate gets longer")
    yield f.always(f.z3.fpEQ(f.mul(g, f.value(1.0)), g), what="factor 1")


@lemma("float.negation", "T12", ("optimizer.keeps_sum",), slow=(FLOAT32,))
def negation(f: Floats) -> Iterator[Step]:
    """Negating both arguments negates a difference, bit for bit: splitting -update and negating the parts is free."""
    a, b = f.symbol("a"), f.symbol("b")
    difference = f.sub(a, b)
    yield f.always(f.z3.fpEQ(f.sub(-a, -b), -difference), what="the difference is odd")


@lemma("float.zero", "T15", ("adapter.identity_at_zero", "split.empty_basis"))
def zero(f: Floats) -> Iterator[Step]:
    """Adding or subtracting zero changes nothing up to the sign of zero, and a - a = 0."""
    a = f.symbol("a")
    for nought in (0.0, -0.0):
        yield f.always(f.z3.fpEQ(f.add(a, f.value(nought)), a), what="a + 0 = a")
    yield f.always(f.z3.fpEQ(f.sub(a, f.value(0.0)), a), what="a - 0 = a")
    yield f.always(f.z3.fpIsZero(f.sub(a, a)), what="a - a = 0")


@lemma("float.unmerge", "T15", ("adapter.unmerge",))
def unmerge(f: Floats) -> Iterator[Step]:
    """Unmerging by subtraction does not give the weight back: there are w and d with fl(fl(w + d) - d) != w."""
    w, d = f.symbol("w"), f.symbol("d")
    found = f.violation(f.z3.fpEQ(f.sub(f.add(w, d), d), w), f.z3.fpEQ(d, f.value(1.0)))
    yield Step("a weight that is lost", found is not None)
    assert found is not None
    weight, delta = (torch.tensor(found[name], dtype=f.form.dtype) for name in ("w", "d"))
    yield Step(f"torch agrees at {found}", bool((weight + delta) - delta != weight))


@lemma("float.k3", "T16", ("grpo.k3",))
def k3(f: Floats, hypothesis: bool = True) -> Iterator[Step]:
    """If the computed expm1(d) is at least d, as a faithful expm1's is, then fl(expm1(d) - d) is not negative."""
    e, d = f.symbol("expm1"), f.symbol("d")
    given = [f.z3.fpGEQ(e, d)] if hypothesis else []
    yield f.always(f.z3.fpGEQ(f.sub(e, d), f.value(0.0)), *given, what="K3 is not negative")


@proof(
    "float.mean_of_equal_rewards", theorem="T16", supports=("grpo.zero_variance",), kind="counterexample",
    extends="One example is enough, and it runs in torch.",
)  # fmt: skip
def mean_of_equal_rewards() -> Iterator[Step]:
    """R - mean(R) of six equal rewards need not be 0 in float32, so that equality has to be tested for."""
    tried = (torch.full((6,), n / 10, dtype=torch.float32) for n in itertools.count(1))
    rewards = next(r for r in itertools.islice(tried, 1000) if bool((r - r.mean()).any()))
    reward = float(rewards[0])
    yield Step(f"not zero at R = {reward:.9g}", bool((rewards - rewards.mean()).any()))
    exact = torch.full((6,), reward, dtype=torch.float64)
    yield Step("six times R over six is R in exact arithmetic", bool((exact * 6 / 6 == exact).all()))
