"""The statistics of one split, against the loop that reads every number by itself."""

import math

import pytest
import torch
from torch import Tensor

from projected_grpo.bench.baselines import split_by_loop, split_by_loop_with_statistics
from projected_grpo.errors import UnsupportedCombinationError
from projected_grpo.split import GroupedSplit, SplitRule
from projected_grpo.split_statistics import split_statistics

DRAW = torch.Generator().manual_seed(0)
BASIS = {
    f"{i}.{r}": torch.linalg.qr(torch.randn(r, 3, dtype=torch.float64, generator=DRAW))[0].T
    for i in range(3)
    for r in (12, 20)
}
WITHIN = 64 * 20 * torch.finfo(torch.float64).eps  # sums over at most 6 x 20 entries, and a product with V more


def gradients(scale: float = 1.0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {n: scale * torch.randn(V.shape[1], dtype=torch.float64, generator=draw) for n, V in BASIS.items()}


@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e20])
def test_the_statistics_are_the_loops(scale: float) -> None:
    g = gradients(scale)
    split = GroupedSplit(BASIS)
    result = split(g)
    found = split_statistics(split, result)
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


def test_in_float32_within_the_stated_bound() -> None:
    """A gradient of which almost half is kept, the least that is not measured: 2 (2 sqrt(k) + k) r ε, as derived."""
    few = {name: V.float() for name, V in BASIS.items()}
    g = {name: V.sum(dim=0) + 0.3 * x.float() for (name, V), x in zip(few.items(), gradients().values(), strict=True)}
    split = GroupedSplit(few)
    result = split(g)
    found = split_statistics(split, result)
    kept, removed, whole = (
        float(torch.cat([*part.values()]).double().norm()) for part in (result.kept, result.removed, g)
    )
    assert 0.5 < kept / whole < 0.6
    within = 2 * (2 * 3**0.5 + 3) * 20 * torch.finfo(torch.float32).eps / 2
    assert found.norm_kept == pytest.approx(kept, rel=within)
    assert found.norm_removed == pytest.approx(removed, rel=within)


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
