"""The statistics of one split, against the loop that reads every number by itself."""

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
