"""The compiled loops: chosen where they should be, and torch's results up to the order in which sums are taken."""

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from routed_toys import INTERVENTIONS, SPACES, make_pairs, routed, take, unchecked_types, values
from torch import Tensor

from projected_grpo import kernels
from projected_grpo.along import along
from projected_grpo.cli import main
from projected_grpo.errors import SettingError
from projected_grpo.kernels import KERNELS, PAYS_FROM, use_kernels
from projected_grpo.split import GroupedSplit, SplitResult, SplitRule, split_stack
from reference import Tape

pytest.importorskip("numba")


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KERNELS, raising=False)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each kernel has run."""
    ran: Counter[str] = Counter()

    def counting(name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
        def count(*args: Any, **kwargs: Any) -> Any:
            ran[name] += 1
            return kernel(*args, **kwargs)

        return count

    for name in ("split", "along"):
        monkeypatch.setattr(kernels, name, counting(name, getattr(kernels, name)))
    return ran


def stack(m: int, k: int, r: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """g (m, r) and V (m, k, r)."""
    draw = torch.Generator().manual_seed(seed)
    V = torch.linalg.qr(torch.randn(m, r, k, generator=draw, dtype=torch.float64))[0].mT
    return torch.randn(m, r, generator=draw, dtype=torch.float64).to(dtype), V.to(dtype).contiguous()


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


@given(
    st.integers(1, 5), st.integers(1, 4), st.integers(4, 70), st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from(["one_sided", "no_gate", "reverse", "predictable"]), st.booleans(), st.booleans(),
)  # fmt: skip
def test_the_split_is_torchs_up_to_the_order_of_sums(
    m: int, k: int, r: int, dtype: torch.dtype, gate: Any, preserve: bool, in_place: bool
) -> None:
    g, V = stack(m, k, r, dtype=dtype)
    open = torch.rand(m, k, generator=torch.Generator().manual_seed(m)) > 0.5 if gate == "predictable" else None
    rule, found = SplitRule(gate=gate, overshoot=1.5, preserve_magnitude=preserve), list[SplitResult]()
    for choice in ("off", "on"):
        own = g.clone()
        with use_kernels(choice):
            found.append(split_stack(own, V, rule, open=open, in_place=in_place))
        assert torch.equal(own, g) or (in_place and not preserve)
    bound = apart(g, V, rule.strength)
    for theirs, ours in zip(*found, strict=True):
        assert ours.dtype == dtype
        if preserve:  # rescaled by at most 2, for of each coefficient at least half is left
            longest = float(g.double().norm(dim=-1).max())
            bound = 4 * math.sqrt(r) * apart(g, V, rule.strength) + h(4 * r + 16, dtype) * longest
        assert float((ours - theirs).abs().max()) <= bound


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("gate", ["one_sided", "no_gate"])
def test_what_is_not_finite_spreads_as_far_as_it_does_in_torch(bad: float, gate: Any) -> None:
    g, V = stack(3, 2, 9)
    g[1, 4] = bad
    found = []
    for choice in ("off", "on"):
        with use_kernels(choice):
            found.append(split_stack(g, V, SplitRule(gate=gate)))
    for theirs, ours in zip(*found, strict=True):
        assert torch.equal(theirs.isfinite(), ours.isfinite())
        assert torch.equal(theirs.isnan(), ours.isnan())
    assert not found[1].kept[1].isfinite().all()


@given(st.integers(1, 4), st.integers(1, 4), st.integers(4, 70), st.sampled_from([1, 5]), st.booleans())
def test_what_diagnostics_look_at_is_torchs_up_to_the_order_of_sums(m: int, k: int, r: int, j: int, wide: bool) -> None:
    dtype = torch.float64 if wide else torch.float32
    V = stack(m, k, r, dtype=dtype)[1]
    groups, place = [[stack(m, k, r, seed, dtype)[0] for seed in range(j)]], j - 1
    found = []
    for choice in ("off", "on"):
        with use_kernels(choice):
            found.append(along(groups, [V], place, careful=False, home=V.device))
    each = max(apart(x, V) for x in groups[0])
    for theirs, ours, entries in zip(*found, (1, m * r, m * r), strict=True):  # of which each is a sum
        assert ours.dtype == torch.float64
        assert ours.shape == theirs.shape
        assert float((ours - theirs).abs().max()) <= entries * each
    x, wide = groups[0][place].double(), V.double()
    rest = x - torch.bmm(torch.bmm(x[:, None], wide.mT), wide).squeeze(1)
    assert float(found[1].off) == pytest.approx(float(rest.abs().sum()), abs=m * r * each)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("intervention", INTERVENTIONS)
def test_training_and_diagnostics_are_the_same_by_either(space: str, intervention: str, calls: Counter[str]) -> None:
    found = []
    for choice in ("off", "on"):
        pairs = make_pairs()
        optimizer = routed(pairs, space=space, intervention=intervention, max_norm=1.0)
        with use_kernels(choice):
            take(optimizer, pairs, range(6))
            found.append((values(pairs), optimizer.diagnostics()))
            assert bool(calls) == (choice == "on")
    assert calls["along"] >= len(optimizer._split.V)
    assert (calls["split"] > 0) == (intervention != "none")
    (theirs, said), (ours, say) = found
    for name, vectors in theirs.items():
        for a, b in zip(vectors, ours[name], strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)  # six steps of AdamW at .05: 20 ulps of .3
    assert say.fired == said.fired
    for name in ("cos_pre", "hackward_share_update", "hackward_share_parameters", "drift_ratio", "drift_opposition"):
        assert getattr(say, name) == pytest.approx(getattr(said, name), rel=1e-3, abs=1e-4)


def test_the_same_call_gives_the_same_bits() -> None:
    g, V = stack(4, 3, 300, dtype=torch.float32)
    with use_kernels("on"):
        first, again = split_stack(g, V, SplitRule()), split_stack(g, V, SplitRule())
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_auto_is_for_large_stacks_on_one_thread(calls: Counter[str]) -> None:
    r = 2**10
    small, large = stack(2, 2, r, dtype=torch.float32), stack(PAYS_FROM // r, 1, r, dtype=torch.float32)
    assert torch.get_num_threads() == 1
    split_stack(*small, SplitRule())
    assert not calls
    split_stack(*large, SplitRule())
    assert calls["split"] == 1
    torch.set_num_threads(2)
    try:
        split_stack(*large, SplitRule())
        assert calls["split"] == 1
        with use_kernels("on"):
            split_stack(*large, SplitRule())
    finally:
        torch.set_num_threads(1)
    assert calls["split"] == 2
    with use_kernels("off"):
        split_stack(*large, SplitRule())
    assert calls["split"] == 2


def test_half_types_strides_and_flowing_gradients_are_torchs(calls: Counter[str]) -> None:
    g, V = stack(2, 3, 16)
    with use_kernels("on"):
        split_stack(g.bfloat16(), V.float(), SplitRule())
        split_stack(g, V.mT.contiguous().mT, SplitRule())
        split_stack(g.T.contiguous().T, V, SplitRule())
        flowing = g.clone().requires_grad_()
        split_stack(flowing, V, SplitRule()).kept.sum().backward()
        assert not calls
        split_stack(g, V, SplitRule())
    assert calls["split"] == 1
    inside = torch.einsum("mkr,mk->mr", V, (torch.einsum("mkr,mr->mk", V, g) > 0) * V.sum(-1))
    torch.testing.assert_close(flowing.grad, 1 - inside, rtol=0, atol=16 * apart(g, V))


def test_the_variable_and_the_block_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels.choice() == "auto"
    monkeypatch.setenv(KERNELS, "on")
    assert kernels.choice() == "on"
    with use_kernels("off"):
        assert kernels.choice() == "off"
        with use_kernels("auto"):
            assert kernels.choice() == "auto"
        assert kernels.choice() == "off"
    monkeypatch.setenv(KERNELS, "")
    assert kernels.choice() == "auto"
    monkeypatch.setenv(KERNELS, "fast")
    with pytest.raises(SettingError, match=r"PROJECTED_GRPO_KERNELS is 'fast'; it must be one of auto, on, off\."):
        kernels.choice()
    with unchecked_types(), pytest.raises(SettingError, match="use_kernels is 'yes'"), use_kernels("yes"):
        pass


def test_without_numba_torch_computes_and_on_is_refused(monkeypatch: pytest.MonkeyPatch, calls: Counter[str]) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name}")

    kernels._compiled.cache_clear()
    monkeypatch.setattr(kernels, "import_module", missing)
    try:
        split_stack(*stack(PAYS_FROM // 2**10, 1, 2**10, dtype=torch.float32), SplitRule())
        assert not calls
        assert kernels.version() is None
        with pytest.raises(SettingError, match="'on', and numba is missing or does not load: pip install numba"):
            kernels._checked("on", "use_kernels")
        with pytest.raises(SettingError, match=r"ask kernels\.serve before"):
            kernels._loops()
    finally:
        kernels._compiled.cache_clear()
    monkeypatch.undo()
    assert kernels.version()


def test_a_grouped_split_of_real_size_keeps_its_bounds_by_itself(calls: Counter[str]) -> None:
    """Nothing is chosen, and modules of two lengths are there."""
    g, V = stack(40, 4, 2560, dtype=torch.float32)
    h, W = stack(8, 2, 64, dtype=torch.float32)
    rows = {**{f"a{i}": each for i, each in enumerate(V)}, **{f"b{i}": each for i, each in enumerate(W)}}
    vectors = {**{f"a{i}": each for i, each in enumerate(g)}, **{f"b{i}": each for i, each in enumerate(h)}}
    result = GroupedSplit(rows)(vectors)
    assert calls["split"] == 1  # of two stacks
    for name, x in vectors.items():
        wide, basis = x.double(), rows[name].double()
        removed = basis.T @ (basis @ wide).relu()
        assert float((result.removed[name] - removed).abs().max()) <= apart(g, V)
        assert torch.equal(result.kept[name], x - result.removed[name])


@pytest.mark.long
def test_the_suite_is_green_by_the_kernels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small_tape: Tape, calls: Counter[str]
) -> None:
    small_tape.save(tmp_path / "tape.safetensors")
    monkeypatch.setenv(KERNELS, "on")
    tape = str(tmp_path / "tape.safetensors")
    assert main(["verify", "--only", "optimizer", "split", "clip", "--profile", "quick", "--tape", tape]) == 0
    assert min(calls["split"], calls["along"]) > 100
