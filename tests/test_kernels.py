"""The compiled loops: chosen where they should be, and torch's results up to the order in which sums are taken."""

import math
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernel_toys import compiled, counted
from routed_toys import unchecked_types
from torch import Tensor
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from projected_grpo import kernels
from projected_grpo.along import Along, look
from projected_grpo.errors import SettingError
from projected_grpo.kernels import KERNELS, PAYS_FROM, use_kernels
from projected_grpo.norms import trusted
from projected_grpo.split import GroupedSplit, SplitResult, SplitRule, fastest_split


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KERNELS, raising=False)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    return counted(monkeypatch, kernels, "split", "look_along")


def stack(m: int, k: int, r: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """g (m, r) and V (m, k, r), whose rows beyond r, and the last one of the first module, are zero."""
    draw = torch.Generator().manual_seed(seed)
    V = torch.zeros(m, k, r, dtype=torch.float64)
    V[:, : min(k, r)] = torch.linalg.qr(torch.randn(m, r, min(k, r), generator=draw, dtype=torch.float64))[0].mT
    if k > 1:
        V[0, -1] = 0
    return torch.randn(m, r, generator=draw, dtype=torch.float64).to(dtype), V.to(dtype).contiguous()


def large() -> tuple[Tensor, Tensor]:
    """What `auto` takes."""
    return stack(PAYS_FROM // 2**10, 1, 2**10, dtype=torch.float32)


def both(run: Callable[[], Any]) -> tuple[Any, Any]:
    """What it returns by torch and by the kernels."""
    found = []
    for choice in ("off", "on"):
        with use_kernels(choice):
            found.append(run())
    return found[0], found[1]


def along(vectors: list[Tensor], V: Tensor, *, careful: bool = False) -> Along:
    return Along.of([part.tolist() for part in look([(vectors, V)], careful=careful, home=V.device)])


def h(n: int, dtype: torch.dtype) -> float:
    """Higham 2002, section 3.1: the relative error of n roundings."""
    u = torch.finfo(dtype).eps / 2
    return n * u / (1 - n * u)


def apart(g: Tensor, V: Tensor, strength: float = 1.0) -> float:
    """How far two orders of summation may part in what is kept or removed.

    Each is within strength · h(r + k + 4) |V|ᵀ(|V||g|) of the exact one, of which no entry is above sqrt(k) ‖g‖, and a
    difference of two rounds once more. Coefficients are within h(r) ‖g‖, which is less.
    """
    _, k, r = V.shape
    return 2 * (strength + 1) * h(r + k + 6, g.dtype) * math.sqrt(k) * float(g.double().norm(dim=-1).max())


@compiled
@given(
    st.integers(1, 5), st.integers(1, 9), st.integers(1, 70), st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from(["one_sided", "no_gate", "reverse", "predictable"]), st.booleans(), st.booleans(),
)  # fmt: skip
def test_the_split_is_torchs_up_to_the_order_of_sums(
    m: int, k: int, r: int, dtype: torch.dtype, gate: Any, preserve: bool, in_place: bool
) -> None:
    g, V = stack(m, k, r, dtype=dtype)
    open = torch.rand(m, k, generator=torch.Generator().manual_seed(m)) > 0.5 if gate == "predictable" else None
    rule = SplitRule(gate=gate, overshoot=1.5, preserve_magnitude=preserve)

    def run() -> SplitResult:
        own = g.clone()
        result = fastest_split(own, V, rule, open=open, in_place=in_place)
        assert torch.equal(own, g) == (not in_place or preserve or not result.removed.any())
        return result

    bound = apart(g, V, rule.strength)
    if preserve:  # rescaled by at most 2, for of each coefficient at least half is left
        bound = 4 * math.sqrt(r) * bound + h(4 * r + 16, dtype) * float(g.double().norm(dim=-1).max())
    for theirs, ours in zip(*both(run), strict=True):
        assert ours.dtype == dtype
        assert float((ours - theirs).abs().max()) <= bound


@compiled
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gate", ["one_sided", "no_gate", "predictable"])
def test_what_is_not_finite_spreads_as_far_as_it_does_in_torch(bad: float, dtype: torch.dtype, gate: Any) -> None:
    g, V = stack(3, 2, 9, dtype=dtype)
    g[1, 4] = bad
    open = torch.tensor([[True, False]] * 3) if gate == "predictable" else None
    theirs, ours = both(lambda: fastest_split(g, V, SplitRule(gate=gate), open=open))
    for a, b in zip(theirs, ours, strict=True):
        assert torch.equal(a.isfinite(), b.isfinite())
        assert torch.equal(a.isnan(), b.isnan())
    assert not ours.kept[1].isfinite().all()


@compiled
@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 70), st.sampled_from([4, 5]), st.booleans())
def test_what_diagnostics_look_at_is_what_they_say_by_either(m: int, k: int, r: int, j: int, wide: bool) -> None:
    dtype = torch.float64 if wide else torch.float32
    V = stack(m, k, r, dtype=dtype)[1]
    vectors = [stack(m, k, r, seed, dtype)[0] for seed in range(j)]
    x, basis = torch.stack(vectors).double(), V.double()  # (j, m, r)
    c = torch.einsum("mkr,jmr->jmk", basis, x)
    d, q = c[2], c[3]
    off = (x[2] - torch.einsum("mkr,mk->mr", basis, d)).abs().sum()
    hackward, lengths = torch.relu(c).flatten(1).norm(dim=1), x.flatten(1).norm(dim=1)
    exact = Along(0, *map(float, (d.abs().sum(), off, (d * q).sum(), q.square().sum())), hackward, lengths)
    each = max(apart(vector, V) for vector in vectors)  # of a coefficient, or an entry; none is longer than `longest`
    longest = float(x.norm(dim=-1).max())
    bounds = Along(0, m * k * each, m * r * each, *[3 * m * k * longest * each] * 2, m * k * each, m * r * each)
    for found in both(lambda: along(vectors, V)):
        for ours, theirs, bound in zip(found[1:], exact[1:], bounds[1:], strict=True):
            difference = torch.tensor(ours, dtype=torch.float64) - torch.as_tensor(theirs, dtype=torch.float64)
            assert float(difference.abs().max()) <= bound
        sure = c[0].abs() > each
        assert int((sure & (c[0] > 0)).sum()) <= found.fired <= int((~sure | (c[0] > 0)).sum())


@compiled
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_in_the_same_sums_by_either(bad: float) -> None:
    for place in range(4):
        vectors = [stack(3, 2, 9, seed)[0] for seed in range(4)]
        vectors[place][1, 4] = bad
        theirs, ours = both(lambda vectors=vectors: along(vectors, stack(3, 2, 9)[1]))
        for a, b in zip((*theirs[:5], *theirs[5], *theirs[6]), (*ours[:5], *ours[5], *ours[6]), strict=True):
            assert (math.isnan(a), math.isinf(a)) == (math.isnan(b), math.isinf(b))


@compiled
def test_what_was_looked_at_before_keeps_its_place() -> None:
    """Sums of three numbers depend on their order."""
    g, V = stack(2, 2, 9)
    before = torch.ones(13, dtype=torch.float64)
    with use_kernels("on"):
        parts = look([([g] * 4, V), before, ([g] * 4, V)], careful=False, home=V.device)
    assert len(parts) == 3
    assert parts[1] is before


def test_a_length_of_parts_that_has_nan_in_it_is_nan() -> None:
    one = [0.0] * 5 + [3.0, math.inf]
    assert Along.of([one, [0.0] * 5 + [4.0, math.nan]])[-2:] == ((5.0,), pytest.approx((math.nan,), nan_ok=True))


@compiled
@pytest.mark.parametrize("size", [2e37, 1e-30])
def test_squares_that_overflow_or_vanish_are_left_to_torch(size: float, calls: Counter[str]) -> None:
    """And sums that do: 64 entries of 2e37 are more than float32 holds."""
    x, V = torch.full((2, 64), size), stack(2, 1, 64, dtype=torch.float32)[1]
    with use_kernels("on"):
        found = along([x] * 4, V, careful=True)
        assert not calls
        plain = along([x] * 4, V)
        assert calls["look_along"] == 1
    length, off = size * math.sqrt(2 * 64), x.double() - (V.double().mT @ (V.double() @ x.double()[..., None]))[..., 0]
    assert found.lengths == pytest.approx([length] * 4, rel=1e-6)
    assert found.off == pytest.approx(float(off.abs().sum()), rel=1e-4)
    assert not any(map(trusted, plain.lengths))


@compiled
def test_the_same_call_gives_the_same_bits() -> None:
    g, V = stack(4, 3, 300, dtype=torch.float32)
    with use_kernels("on"):
        first, again = fastest_split(g, V, SplitRule()), fastest_split(g, V, SplitRule())
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@compiled
def test_auto_is_for_large_stacks_of_modules_that_a_cache_holds_on_one_thread(
    calls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert torch.get_num_threads() == 1
    fastest_split(*stack(2, 2, 2**10, dtype=torch.float32), SplitRule())
    fastest_split(*stack(1, 2, PAYS_FROM, dtype=torch.float32), SplitRule())
    assert not calls
    fastest_split(*large(), SplitRule())
    assert calls["split"] == 1
    with monkeypatch.context() as patched:
        patched.setattr(torch, "get_num_threads", lambda: 2)
        fastest_split(*large(), SplitRule())
        assert calls["split"] == 1
        assert kernels.named() is None
        with use_kernels("on"):
            fastest_split(*large(), SplitRule())
        assert calls["split"] == 2
    with use_kernels("off"):
        fastest_split(*large(), SplitRule())
    assert calls["split"] == 2


@compiled
def test_what_the_loops_cannot_read_is_torchs(calls: Counter[str]) -> None:
    g, V = stack(2, 3, 16)
    with use_kernels("on"):
        fastest_split(g.bfloat16(), V.float(), SplitRule())
        fastest_split(g, V.mT.contiguous().mT, SplitRule())
        fastest_split(g.T.contiguous().T, V, SplitRule())
        fastest_split(torch._neg_view(g), V, SplitRule())
        fastest_split(g.to("meta"), V.to("meta"), SplitRule())
        for wrong in (g[:1], g[:, :8].contiguous(), torch.ones(3, 16, dtype=torch.float64)):
            with unchecked_types(), pytest.raises(RuntimeError, match=r"size|shape|expand"):
                fastest_split(wrong, V, SplitRule())
        flowing = g.clone().requires_grad_()
        fastest_split(flowing, V, SplitRule()).kept.sum().backward()
        assert not calls
        fastest_split(g, V, SplitRule())
    assert calls["split"] == 1
    inside = torch.einsum("mkr,mk->mr", V, (torch.einsum("mkr,mr->mk", V, g) > 0) * V.sum(-1))
    torch.testing.assert_close(flowing.grad, 1 - inside, rtol=0, atol=16 * apart(g, V))


class Watching(TorchDispatchMode):
    products = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.products += func is torch.ops.aten.bmm.default
        return func(*args, **(kwargs or {}))


@compiled
@pytest.mark.filterwarnings(
    "ignore:.torch.jit.script. is deprecated"
)  # by torch itself, at the first forward derivative
def test_whoever_watches_torch_sees_the_split(calls: Counter[str]) -> None:
    """Transforms, tracers, modes and forward derivatives: arrays in memory are all that a loop would see."""
    g, V = stack(2, 3, 16)
    grouped = GroupedSplit({"a": V[0], "b": V[1]}, SplitRule(gate="no_gate"))

    def kept(x: Tensor) -> Tensor:
        return grouped({"a": x[0], "b": x[1]}).kept["a"]

    wanted, other, bound = kept(g), kept(2 * g), apart(2 * g, V)
    with use_kernels("on"), torch.no_grad():
        with Watching() as mode:
            kept(g)
        assert mode.products == 2
        both_at_once = torch.func.vmap(kept)(torch.stack([g, 2 * g]))
        torch.testing.assert_close(both_at_once, torch.stack([wanted, other]), rtol=0, atol=bound)
        _, tangent = torch.func.jvp(kept, (g,), (g,))
        with forward_ad.dual_level():
            forward = forward_ad.unpack_dual(kept(forward_ad.make_dual(g, g))).tangent
        for derivative in (tangent, forward):
            torch.testing.assert_close(derivative, wanted, rtol=0, atol=bound)  # it is linear
        torch.testing.assert_close(make_fx(kept)(g)(2 * g), other, rtol=0, atol=bound)
        assert not calls
        kept(g)
        assert calls["split"] == 1


def test_a_split_is_compiled_whole() -> None:
    """Whatever is installed, dynamo meets nothing that it cannot follow."""
    g, V = stack(2, 3, 16)
    grouped = GroupedSplit({"a": V[0], "b": V[1]})
    with unchecked_types():
        whole = torch.compile(lambda x: grouped.of_stacks([x], None)[0][0].kept, backend="eager", fullgraph=True)
        torch.testing.assert_close(whole(g), grouped.of_stacks([g], None)[0][0].kept, rtol=0, atol=apart(g, V))


@compiled
def test_the_variable_and_the_block_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels.chosen() == "auto"
    monkeypatch.setenv(KERNELS, "on")
    assert kernels.chosen() == "on"
    with use_kernels("off"):
        assert kernels.chosen() == "off"
        with use_kernels("auto"):
            assert kernels.chosen() == "auto"
        assert kernels.chosen() == "off"
    monkeypatch.setenv(KERNELS, "")
    assert kernels.chosen() == "auto"
    monkeypatch.setenv(KERNELS, "fast")
    with pytest.raises(SettingError, match=r"PROJECTED_GRPO_KERNELS is 'fast'; it must be one of auto, on, off\."):
        kernels.chosen()
    with unchecked_types(), pytest.raises(SettingError, match="use_kernels is 'yes'"), use_kernels("yes"):
        pass


@compiled
def test_what_may_compute_is_named() -> None:
    numba = f"numba {version('numba')}"
    assert kernels.named() == f"{numba} from 262,144 entries of V"
    with use_kernels("on"):
        assert kernels.named() == numba
    with use_kernels("off"):
        assert kernels.named() is None


@pytest.mark.parametrize("error", [ImportError, OSError, AttributeError])
def test_without_numba_torch_computes_and_on_is_refused(
    monkeypatch: pytest.MonkeyPatch, calls: Counter[str], error: type[Exception]
) -> None:
    def missing(name: str) -> Any:
        raise error(f"No module named {name}")

    kernels._compiled.cache_clear()
    monkeypatch.setattr(kernels, "import_module", missing)
    try:
        fastest_split(*large(), SplitRule())
        assert not calls
        assert kernels.version() is None
        assert kernels.named() is None
        refused = pytest.raises(SettingError, match="'on', and numba is missing or does not load; install the extra")
        with refused, use_kernels("on"):
            pass
    finally:
        kernels._compiled.cache_clear()


@compiled
def test_a_grouped_split_of_real_size_keeps_its_bounds_by_itself(calls: Counter[str]) -> None:
    """Nothing is chosen, and modules of two lengths are there."""
    g, V = stack(40, 4, 2560, dtype=torch.float32)
    short, narrow = stack(8, 2, 64, dtype=torch.float32)
    rows = {**{f"a{i}": each for i, each in enumerate(V)}, **{f"b{i}": each for i, each in enumerate(narrow)}}
    vectors = {**{f"a{i}": each for i, each in enumerate(g)}, **{f"b{i}": each for i, each in enumerate(short)}}
    result = GroupedSplit(rows)(vectors)
    assert calls["split"] == 1  # of two stacks
    for name, x in vectors.items():
        wide, basis = x.double(), rows[name].double()
        removed = basis.T @ (basis @ wide).relu()
        assert float((result.removed[name] - removed).abs().max()) <= apart(g, V)
        assert torch.equal(result.kept[name], x - result.removed[name])
