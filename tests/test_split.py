"""The split against its algebra, over shapes, magnitudes and dtypes, with bounds that are formulas."""

import doctest
import importlib
import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from routed_toys import unchecked_types
from torch import Tensor

from projected_grpo import kernels
from projected_grpo.basis import orthonormality_tolerance
from projected_grpo.clip import clip_factor
from projected_grpo.errors import DTypeMismatchError, SettingError, ShapeMismatchError
from projected_grpo.kernels import use_kernels
from projected_grpo.norms import global_norm, peak_and_norm, working_dtype
from projected_grpo.split import GroupedSplit, SplitResult, SplitRule, fastest_split, split

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
GATES = ["one_sided", "no_gate", "reverse"]
# Where g, its norm and its products with V stay inside the dtype's range, subnormals kept out.
EXPONENTS = {torch.float64: 30, torch.float32: 30, torch.bfloat16: 30, torch.float16: 1}


def unit_roundoff(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps / 2


def h(n: int, u: float) -> float:
    """Higham 2002, section 3.1: the relative error of n roundings."""
    return n * u / (1 - n * u)


def orthonormal(k: int, r: int, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.linalg.qr(torch.randn(r, k, generator=generator, dtype=torch.float64))[0].T[:k].to(dtype).contiguous()


@st.composite
def cases(draw: st.DrawFn, dtypes: Sequence[torch.dtype] = DTYPES) -> tuple[Tensor, Tensor]:
    """g (r,), V (k, r) with k from 0 to r, some rows zero, g over 60 orders of magnitude."""
    dtype = draw(st.sampled_from(dtypes))
    r = draw(st.integers(1, 24))
    k = draw(st.sampled_from([0, 1, r, r // 2]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    V = orthonormal(k, r, generator, dtype)
    if k and draw(st.booleans()):
        V[draw(st.integers(0, k - 1))] = 0
    size = 10.0 ** draw(st.integers(-EXPONENTS[dtype], EXPONENTS[dtype]))
    return (torch.randn(r, generator=generator, dtype=torch.float64) * size).to(dtype), V


rules = st.builds(
    SplitRule,
    gate=st.sampled_from(GATES),
    overshoot=st.sampled_from([0.5, 1.0, 1.1, 2.0]),
    preserve_magnitude=st.booleans(),
)


def exact(g: Tensor, V: Tensor, rule: SplitRule) -> Tensor:
    """What the stored g and V say is removed, in float64."""
    c = V.double() @ g.double()
    used = {"one_sided": c.relu(), "no_gate": c, "reverse": 2 * c}[rule.gate]
    return rule.overshoot * (V.double().T @ used)


def removed_bound(g: Tensor, V: Tensor, rule: SplitRule, removed: Tensor) -> Tensor:
    """The bound of the module's docstring, plus what the float64 computation that it is compared with may be off."""
    k, r = V.shape
    w = unit_roundoff(working_dtype(g.dtype))
    u = unit_roundoff(g.dtype) if working_dtype(g.dtype) != g.dtype else 0.0
    size = V.double().abs().T @ (V.double().abs() @ g.double().abs())
    rounding = h(r + k + 4, w) + h(r + k + 4, unit_roundoff(torch.float64))
    return rule.strength * rounding * size + u * removed.double().abs() + torch.finfo(g.dtype).tiny


def every_form(g: Tensor, V: Tensor, rule: SplitRule) -> list[SplitResult]:
    """The functional split, and the grouped one by torch and, if numba is there, by the kernels."""
    forms = [split(g, V, rule=rule)]
    grouped = GroupedSplit({"here": V, "wider": torch.zeros(V.shape[0] + 2, V.shape[1], dtype=V.dtype)}, rule)
    for choice in ("off",) if kernels.version() is None else ("off", "on"):
        with use_kernels(choice):
            result = grouped({"here": g, "wider": g})
        assert torch.equal(result.kept["wider"], g) or rule.preserve_magnitude
        forms.append(SplitResult(result.kept["here"], result.removed["here"], torch.empty(0)))
    return forms


@given(cases(), rules)
def test_removed_is_within_its_bound_in_every_form(case: tuple[Tensor, Tensor], rule: SplitRule) -> None:
    g, V = case
    for result in every_form(g, V, rule):
        error = (result.removed.double() - exact(g, V, rule)).abs()
        assert (error <= removed_bound(g, V, rule, result.removed)).all()
        assert result.kept.dtype == result.removed.dtype == g.dtype


@given(cases(), rules.filter(lambda rule: not rule.preserve_magnitude))
def test_conservation(case: tuple[Tensor, Tensor], rule: SplitRule) -> None:
    """|fl(kept + removed) - g| <= 2 u max(|g|, |removed|, |kept|), elementwise."""
    g, V = case
    for kept, removed, _ in every_form(g, V, rule):
        largest = torch.stack([g.abs(), removed.abs(), kept.abs()]).amax(0).double()
        # The difference of two numbers of one dtype that are this close is exact in float64.
        difference = ((kept + removed).double() - g.double()).abs()
        assert (difference <= 2 * unit_roundoff(g.dtype) * largest).all()


def along_basis_bound(g: Tensor, V: Tensor) -> float:
    """How large V · kept may be where exact arithmetic says zero; float64.

    The rows are orthonormal to t, which moves V Vᵀ c by at most sqrt(k) t ‖g‖. An entry of |V|ᵀ(|V||g|) is at most
    sqrt(k) ‖g‖, since the columns of |V| are no longer than 1, so `removed` is off by h sqrt(k) ‖g‖ there, and its
    inner product with a row by sqrt(r) times that; as much again for the subtraction, and for the product here.
    """
    k, r = V.shape
    t, w = orthonormality_tolerance(r, torch.float64), unit_roundoff(torch.float64)
    return float(g.norm()) * (math.sqrt(k) * t + 3 * h(r + k + 4, w) * math.sqrt(r * k))


@given(cases([torch.float64]))
def test_one_sidedness_and_pythagoras(case: tuple[Tensor, Tensor]) -> None:
    """V kept = -relu(-c), and kept is orthogonal to removed = Vᵀ relu(c)."""
    g, V = case
    result, bound = split(g, V), along_basis_bound(g, V)
    assert ((V @ result.kept + (-result.coefficients).relu()).abs() <= bound).all()
    assert abs(float(result.kept @ result.removed)) <= 2 * bound * V.shape[0] * float(g.norm())


@given(cases([torch.float64]), st.sampled_from([1.0, 1.5, 2.0]))
def test_splitting_again_removes_nothing(case: tuple[Tensor, Tensor], overshoot: float) -> None:
    """One-sided with overshoot >= 1 is idempotent, up to what rounding left along V."""
    g, V = case
    rule = SplitRule(overshoot=overshoot)
    again = split(split(g, V, rule=rule).kept, V, rule=rule)
    assert float(again.removed.norm()) <= overshoot * 2 * overshoot * V.shape[0] * along_basis_bound(g, V)


@given(cases(), rules, st.integers(-3, 3))
def test_a_power_of_two_passes_through_exactly(case: tuple[Tensor, Tensor], rule: SplitRule, power: int) -> None:
    g, V = case
    if rule.preserve_magnitude or g.dtype == torch.float16:  # float16 meets its subnormals
        return
    plain, scaled = split(g, V, rule=rule), split(g * 2.0**power, V, rule=rule)
    assert torch.equal(plain.kept * 2.0**power, scaled.kept)
    assert torch.equal(plain.removed * 2.0**power, scaled.removed)


@given(cases(), rules.filter(lambda rule: rule.preserve_magnitude))
def test_preserved_magnitude_at_every_size(case: tuple[Tensor, Tensor], rule: SplitRule) -> None:
    """‖kept‖ = ‖g‖, with squares that would overflow; and zero where there is nothing to rescale."""
    g, V = case
    r = V.shape[1]
    for kept, removed, _ in every_form(g, V, rule):
        assert torch.isfinite(kept).all()
        unscaled = g - removed
        if not unscaled.any():
            assert not kept.any()
        elif V.any():
            length, wanted = float(global_norm([kept])), float(global_norm([g]))
            roundings = h(2 * r + 8, unit_roundoff(working_dtype(g.dtype))) + unit_roundoff(g.dtype)
            assert abs(length - wanted) <= roundings * wanted + math.sqrt(r) * torch.finfo(g.dtype).tiny


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_preserved_magnitude_of_half_types_rounds_once(dtype: torch.dtype) -> None:
    """The norms are in the working dtype: half of all entries would be off by an ulp after norms in the half type."""
    generator, w = torch.Generator().manual_seed(0), unit_roundoff(torch.float32)
    for _ in range(32):
        g, V = torch.randn(16, generator=generator).to(dtype), orthonormal(2, 16, generator, dtype)
        kept, removed, _ = split(g, V, rule=SplitRule(preserve_magnitude=True))
        unscaled = (g - removed).double()
        exact = unscaled * g.double().norm() / unscaled.norm()
        assert ((kept.double() - exact).abs() <= (unit_roundoff(dtype) + h(48, w)) * exact.abs()).all()


def test_preserve_magnitude_of_nothing_is_zero() -> None:
    result = split(torch.tensor([2.0, 0.0]), torch.tensor([[1.0, 0.0]]), rule=SplitRule(preserve_magnitude=True))
    assert result.kept.tolist() == [0.0, 0.0]
    assert result.removed.tolist() == [2.0, 0.0]


def test_modules_of_several_shapes_some_absent_some_without_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = {f"{r}.{k}": orthonormal(k, r, generator) for r in (4, 9) for k in (0, 1, 3, 4)}
    vectors = {name: torch.randn(V.shape[1], generator=generator, dtype=torch.float64) for name, V in rows.items()}
    vectors["unnamed"] = torch.ones(7)
    present = {name: g for name, g in vectors.items() if name != "9.3"}
    for given_vectors in (vectors, present):
        result = GroupedSplit(rows)(given_vectors)
        assert list(result.kept) == list(given_vectors)
        assert set(result.removed) == set(given_vectors)
        for name, g in given_vectors.items():
            if name in rows and rows[name].shape[0]:
                one = split(g, rows[name])
                bound = removed_bound(g, rows[name], SplitRule(), one.removed) * 2
                assert ((result.removed[name] - one.removed).abs() <= bound).all()
            else:
                assert torch.equal(result.kept[name], g)
                assert torch.equal(result.removed[name], torch.zeros_like(g))
    assert any(removed.any() for removed in result.removed.values())
    assert GroupedSplit(rows).axes(vectors.keys()) == (16, 3 * 4 + 3 * 9)
    assert GroupedSplit(rows).axes(present.keys()) == (13, 3 * 4 + 2 * 9)
    assert GroupedSplit(rows)({}).stacks == []
    for r in (4, 9):  # whichever group comes first
        alone = {name: g for name, g in vectors.items() if g.shape == (r,)}
        result = GroupedSplit(rows)(alone)
        assert [stack.vectors.shape for stack in result.stacks] == [(3, r)]
        assert any(removed.any() for removed in result.removed.values())


@pytest.mark.parametrize("rule", [SplitRule(gate="no_gate"), SplitRule(overshoot=1.5)], ids=str)
def test_modules_that_are_left_out_change_nothing_for_the_others(rule: SplitRule) -> None:
    """In bfloat16, whose rows are held in float32, and with fewer rows than the module that is absent."""
    generator = torch.Generator().manual_seed(0)
    rows = {name: orthonormal(k, 9, generator).bfloat16() for name, k in (("a", 1), ("b", 3), ("absent", 4))}
    g = {name: torch.randn(9, generator=generator).bfloat16() for name in ("a", "b")}
    split_of_all, split_of_two = GroupedSplit(rows, rule), GroupedSplit({name: rows[name] for name in g}, rule)
    all_of_them, two = split_of_all(g), split_of_two(g)
    for one, other in ((all_of_them.kept, two.kept), (all_of_them.removed, two.removed)):
        assert all(torch.equal(one[name], other[name]) and one[name].dtype == torch.bfloat16 for name in g)
    assert split_of_all(g).removed["b"].any()


@pytest.mark.parametrize(
    ("rule", "open"),
    [
        (SplitRule(), None), (SplitRule(gate="predictable"), torch.tensor([[True, False]])),
        (SplitRule(preserve_magnitude=True), None),
    ],
)  # fmt: skip
def test_in_place_what_is_kept_takes_the_place_of_what_was_split(rule: SplitRule, open: Tensor | None) -> None:
    given, V = torch.tensor([[3.0, 1.0, 2.0, -1.0]]), torch.eye(2, 4)[None]
    g = given.clone()
    own = fastest_split(g, V, rule, open=open)
    assert torch.equal(g, given)
    part = fastest_split(g, V, rule, open=open, in_place=True)
    assert all(torch.equal(a, b) for a, b in zip(own, part, strict=True))
    assert (part.kept.data_ptr() == g.data_ptr()) is not rule.preserve_magnitude


def test_a_projection_has_copies_and_their_coefficients() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = {name: orthonormal(2, r, generator) for name, r in (("a", 4), ("b", 4), ("c", 6), ("absent", 4))}
    x = {name: torch.randn(rows[name].shape[1], generator=generator, dtype=torch.float64) for name in "abc"}
    (four, six) = GroupedSplit(rows).project(x)
    assert torch.equal(four.vectors, torch.stack([x["a"], x["b"]]))
    assert torch.equal(six.vectors, x["c"][None])
    for stack, names in ((four, "ab"), (six, "c")):
        wanted = torch.stack([rows[name] @ x[name] for name in names])
        torch.testing.assert_close(stack.coefficients, wanted, rtol=0, atol=h(10, unit_roundoff(torch.float64)) * 4)
    four.vectors.zero_()
    assert x["a"].any()


def test_no_loop_over_modules_in_the_arithmetic() -> None:
    """The number of matrix products does not depend on the number of modules."""

    class Counter(torch.utils._python_dispatch.TorchDispatchMode):
        products = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.products += func in (torch.ops.aten.bmm.default, torch.ops.aten.mm.default, torch.ops.aten.mv.default)
            return func(*args, **(kwargs or {}))

    grouped = GroupedSplit({f"{i}": torch.eye(1 + i % 3, 8) for i in range(50)})
    with Counter() as counter:
        grouped({f"{i}": torch.ones(8) for i in range(50)})
    assert counter.products == 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_norms_do_not_overflow_or_vanish(dtype: torch.dtype) -> None:
    largest, smallest = torch.finfo(dtype).max, torch.finfo(dtype).tiny
    u = unit_roundoff(dtype)
    for size in (largest / 8, smallest * 8):
        x = torch.full((16,), size, dtype=dtype)
        assert float(global_norm([x])) == pytest.approx(float(x[0].double()) * 4, rel=h(16, u))
    assert float(global_norm([torch.zeros(3)], [])) == 0.0
    assert float(global_norm([], [])) == 0.0
    assert not math.isfinite(float(global_norm([torch.tensor([1.0, math.inf])])))
    assert math.isnan(float(global_norm([torch.tensor([1.0, math.nan])])))


def test_the_global_norm_takes_any_mixture() -> None:
    mixed = [torch.tensor([3.0]), torch.tensor([[4.0]], dtype=torch.float64), torch.tensor(12.0, dtype=torch.bfloat16)]
    sparse = torch.sparse_coo_tensor([[0, 2]], [84.0, 0.0], (5,), check_invariants=False)
    roundings = h(8, unit_roundoff(torch.float32))
    assert float(global_norm(mixed, [sparse, torch.zeros(0)])) == pytest.approx(85.0, rel=roundings)
    peak, scaled = peak_and_norm(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    assert (peak * scaled).tolist() == [[5.0], [0.0]]


def test_clip_factor() -> None:
    def factor(norm: float, limit: float | None) -> float:
        return float(clip_factor(torch.tensor(norm, dtype=torch.float64), limit))

    assert factor(2.0, 2.0) == 1.0
    assert factor(0.0, 2.0) == 1.0
    assert factor(8.0, 2.0) == 0.25
    assert factor(8.0, None) == 1.0
    assert math.isnan(factor(math.inf, 2.0))  # and not 0, which would drop the gradients without a word
    assert math.isnan(factor(math.nan, 2.0))


def test_rules_are_validated() -> None:
    with (
        unchecked_types(),
        pytest.raises(SettingError, match="gate is 'sideways'; it must be one of one_sided, no_gate, reverse"),
    ):
        SplitRule(gate="sideways")
    for overshoot in (0.0, -1.0, math.inf, math.nan, "1", None):
        with unchecked_types(), pytest.raises(SettingError, match=f"overshoot is {overshoot!r}"):
            SplitRule(overshoot=overshoot)


def test_shapes_and_dtypes_are_validated() -> None:
    with pytest.raises(ShapeMismatchError, match=r"g is \(3,\) and V \(1, 2\)"):
        split(torch.ones(3), torch.eye(1, 2))
    with pytest.raises(ShapeMismatchError, match=r"\(1, 3\)"):
        split(torch.ones(1, 3), torch.eye(1, 3))
    for g, V in ((torch.ones(3), torch.ones(3)), (torch.ones(3, 3), torch.eye(2, 3))):
        with unchecked_types(), pytest.raises(ShapeMismatchError):
            split(g, V)
    with pytest.raises(DTypeMismatchError, match=r"basis.to\(dtype=torch.float64\)"):
        split(torch.ones(3).double(), torch.eye(1, 3))
    grouped = GroupedSplit({"proj": torch.eye(1, 3)})
    with pytest.raises(ShapeMismatchError, match=r"proj: the vector is \(2,\), its basis has r = 3"):
        grouped({"proj": torch.ones(2)})
    with pytest.raises(DTypeMismatchError, match=r"proj: the vector is torch\.float64"):
        grouped({"proj": torch.ones(3).double()})


@pytest.mark.parametrize("module", ["split", "basis", "optimizer"])
def test_examples_in_docstrings(module: str) -> None:
    outcome = doctest.testmod(importlib.import_module(f"projected_grpo.{module}"))
    assert outcome.attempted > 0
    assert outcome.failed == 0
