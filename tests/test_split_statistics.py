"""The statistics of one split, against the loop that reads every number by itself."""

import math
from collections.abc import Iterator

import pytest
import torch
from kernel_toys import compiled, counted
from torch import Tensor

from projected_grpo import kernels
from projected_grpo.bench.baselines import split_by_loop, split_by_loop_with_statistics
from projected_grpo.errors import UnsupportedCombinationError
from projected_grpo.kernels import use_kernels
from projected_grpo.split import GroupedSplit, MemorylessGate, SplitRule, split
from projected_grpo.split_statistics import split_statistics

DRAW = torch.Generator().manual_seed(0)
BASIS = {
    f"{i}.{r}": torch.linalg.qr(torch.randn(r, 3, dtype=torch.float64, generator=DRAW))[0].T
    for i in range(3)
    for r in (12, 20)
}
WITHIN = 64 * 20 * torch.finfo(torch.float64).eps  # sums over at most 6 x 20 entries, and a product with V more


@pytest.fixture(autouse=True, params=["off", pytest.param("on", marks=compiled)])
def by(request: pytest.FixtureRequest) -> Iterator[str]:
    """Torch, and the compiled loops."""
    with use_kernels(request.param):
        yield request.param


def gradients(scale: float = 1.0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {n: scale * torch.randn(V.shape[1], dtype=torch.float64, generator=draw) for n, V in BASIS.items()}


@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e20])
def test_the_statistics_are_the_loops(scale: float, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    g = gradients(scale)
    split = GroupedSplit(BASIS)
    result = split(g)
    calls = counted(monkeypatch, kernels, "of_split")
    found = split_statistics(split, result)
    assert calls["of_split"] == (2 if by == "on" else 0)
    (kept, removed), wanted = split_by_loop_with_statistics(g, BASIS)
    for name in g:
        torch.testing.assert_close(result.kept[name], kept[name], rtol=0, atol=WITHIN * scale)
        torch.testing.assert_close(result.removed[name], removed[name], rtol=0, atol=WITHIN * scale)
    for name in ("norm", "norm_kept", "norm_removed", "cos_pre"):
        assert getattr(found, name) == pytest.approx(wanted[name], rel=WITHIN)
    assert 0 < found.fired == wanted["fired"] < 18
    assert found.cos_post == pytest.approx(wanted["cos_post"], abs=WITHIN)
    assert [list(part) for part in split_by_loop(g, BASIS)] == [list(g), list(g)]


def test_what_is_left_along_the_basis_is_seen() -> None:
    """Half of what is hack-ward is removed, so half of it stays."""
    split = GroupedSplit(BASIS, SplitRule(overshoot=0.5))
    found = split_statistics(split, split(gradients()))
    assert found.cos_post * found.norm_kept == pytest.approx(found.cos_pre * found.norm / 2, rel=WITHIN)


@pytest.mark.parametrize("share", [1e-3, 1e-9, 0.0])
def test_little_is_kept(share: float) -> None:
    """‖g‖² less what was removed would be rounding alone, so the parts are measured."""
    draw = torch.Generator().manual_seed(2)
    along = {name: V.sum(dim=0) for name, V in BASIS.items()}
    noise = {name: torch.randn(V.shape[1], dtype=torch.float64, generator=draw) for name, V in BASIS.items()}
    g = {name: along[name] + share * (x - BASIS[name].T @ (BASIS[name] @ x)) for name, x in noise.items()}
    split = GroupedSplit(BASIS)
    result = split(g)
    found = split_statistics(split, result)
    kept, removed = (torch.cat([*part.values()]).norm() for part in (result.kept, result.removed))
    assert found.norm_kept == pytest.approx(float(kept), rel=WITHIN)
    assert found.norm_removed == pytest.approx(float(removed), rel=WITHIN)
    assert found.norm_kept < max(share, WITHIN) * 20 < 0.1 < found.norm_removed


def drawn(dtype: torch.dtype, along: float) -> dict[str, Tensor]:
    """Gradients with so much along the basis, beside a part of about the length 2 of which most is elsewhere."""
    return {name: (along * BASIS[name].sum(dim=0) + g / 2).to(dtype) for name, g in gradients().items()}


def within(dtype: torch.dtype, strength: float) -> tuple[float, float]:
    """What the module promises of the norms of the kept and the removed part, relative to themselves."""
    each = (20 + 3 * 3 + 3) * torch.finfo(dtype).eps / 2
    return 2 * (1 + strength * 3**0.5) ** 2 * each, 3 / 2 * each


def measured(part: dict[str, Tensor]) -> float:
    return float(torch.cat([vector.double() for vector in part.values()]).norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("overshoot", [1e-6, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("gate", ["one_sided", "no_gate", "reverse"])
def test_norms_are_those_of_the_parts_within_the_stated_bounds(
    gate: MemorylessGate, overshoot: float, dtype: torch.dtype
) -> None:
    """Also where a row is zero, and where G is not the identity, so that V removed is not u."""
    rows = {name: V.to(dtype) for name, V in BASIS.items()}
    rows["0.12"] = torch.cat([rows["0.12"][:2], torch.zeros(1, 12, dtype=dtype)])
    rows["0.20"] = rows["0.20"] + 1e-3 * rows["0.20"].flip(0)
    rule = SplitRule(gate=gate, overshoot=overshoot)
    g, split = drawn(dtype, along=0.5), GroupedSplit(rows, rule)
    result = split(g)
    found = split_statistics(split, result)
    of_kept, of_removed = within(dtype, rule.strength)
    assert measured(result.kept) > measured(g) / 2, "nothing was measured by the statistics themselves"
    assert found.norm_kept == pytest.approx(measured(result.kept), rel=of_kept)
    assert found.norm_removed == pytest.approx(measured(result.removed), rel=of_removed)
    behind = torch.cat([rows[name].double() @ kept.double() for name, kept in result.kept.items()]).relu().norm()
    assert found.cos_post * found.norm_kept == pytest.approx(float(behind), abs=of_kept * measured(g))


@pytest.mark.parametrize("scale", [1.0, 1e-21, 1e21])
def test_in_float32_the_parts_are_measured_where_algebra_would_be_rounding(scale: float) -> None:
    """Where three tenths are kept, and where squares of the gradient overflow or vanish."""
    rows = {name: V.float() for name, V in BASIS.items()}
    g = {name: scale * x for name, x in drawn(torch.float32, along=4.0).items()}
    split = GroupedSplit(rows)
    result = split(g)
    found = split_statistics(split, result)
    assert 0.2 < measured(result.kept) / measured(g) < 0.4
    for norm, part in ((found.norm_kept, result.kept), (found.norm_removed, result.removed), (found.norm, g)):
        assert norm == pytest.approx(measured(part), rel=1e-15)  # in float64, as here


def test_autocast_changes_nothing() -> None:
    g, rows = drawn(torch.float32, along=0.5), {name: V.float() for name, V in BASIS.items()}
    plain = GroupedSplit(rows)
    with torch.autocast("cpu", torch.bfloat16):
        inside = GroupedSplit(rows)
        assert split_statistics(inside, inside(g)) == split_statistics(plain, plain(g))
        parts = [split(g[name], rows[name]) for name in g]
    for name, part in zip(g, parts, strict=True):
        assert torch.equal(part.kept, split(g[name], rows[name]).kept)
    assert split_statistics(inside, inside(g)) == split_statistics(plain, plain(g))


def test_a_half_type_rounds_its_parts_and_they_are_measured() -> None:
    one = {"a": torch.ones(1, 1, dtype=torch.float16)}
    beyond = GroupedSplit(one, SplitRule(gate="reverse"))
    assert split_statistics(beyond, beyond({"a": torch.full((1,), 4e4, dtype=torch.float16)})).norm_removed == math.inf
    row = {"a": torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float16)}
    below = GroupedSplit(row, SplitRule(overshoot=1e-3))
    found = split_statistics(below, below({"a": torch.tensor([2e-5, 3e-5, 0, 0], dtype=torch.float16)}))
    assert (found.norm_removed, found.norm_kept) == (0.0, found.norm)


@pytest.mark.parametrize("entry", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_told(entry: float) -> None:
    split = GroupedSplit(BASIS)
    g = gradients()
    g["0.12"][3] = entry
    found = split_statistics(split, split(g))
    assert not math.isfinite(found.norm)
    assert not math.isfinite(found.norm_kept)


def test_some_modules_absent_and_nothing_but_zeros() -> None:
    split = GroupedSplit(BASIS)
    few = {name: g for name, g in gradients().items() if not name.startswith("0")}
    assert split_statistics(split, split(few)).norm == pytest.approx(
        float(torch.cat([*few.values()]).norm()), rel=WITHIN
    )
    nothing = split_statistics(split, split({name: torch.zeros_like(g) for name, g in few.items()}))
    none_there = split_statistics(split, split({"unnamed": torch.ones(2, dtype=torch.float64)}))
    for found in (nothing, none_there):
        assert (found.norm, found.norm_kept, found.norm_removed) == (0.0, 0.0, 0.0)
        assert (found.cos_pre, found.cos_post, found.fired) == (0.0, 0.0, 0)


def test_a_rule_whose_kept_part_does_not_follow_from_the_coefficients_is_refused() -> None:
    split = GroupedSplit(BASIS, SplitRule(preserve_magnitude=True))
    with pytest.raises(UnsupportedCombinationError, match="measure it instead"):
        split_statistics(split, split(gradients()))


@pytest.mark.parametrize("theirs", [1, 12])
def test_what_another_split_has_made_of_the_same_modules_is_refused(theirs: int) -> None:
    other = GroupedSplit({name: torch.eye(V.shape[1], dtype=torch.float64)[:theirs] for name, V in BASIS.items()})
    with pytest.raises(RuntimeError, match="size"):
        split_statistics(GroupedSplit(BASIS), other(gradients()))
