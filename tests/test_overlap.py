"""What a refreshed basis keeps of the old one: the mean squared cosine of principal angles."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from projected_grpo.basis import Basis
from projected_grpo.errors import ShapeMismatchError, StaleBasisError, UnmatchedNamesError
from projected_grpo.extraction import overlap

R = 8
AXES = torch.eye(R, dtype=torch.float64)


def rows(k: int, seed: int) -> Tensor:
    return torch.linalg.qr(torch.randn(R, k, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))[0].T


def test_it_is_one_for_one_span_whatever_its_axes_and_zero_for_orthogonal_ones() -> None:
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    old = Basis({"same": AXES[:2], "turned": AXES[:2], "inside": AXES[:3], "apart": AXES[:2], "half": AXES[:2]})
    new = Basis({
        "same": -AXES[:2], "turned": turn @ AXES[:2], "inside": AXES[1:2], "apart": AXES[4:6], "half": AXES[1:3],
    })  # fmt: skip
    shared = overlap(new, old)
    assert shared == overlap(old, new)
    assert shared == pytest.approx({"same": 1, "turned": 1, "inside": 1, "apart": 0, "half": 0.5}, abs=1e-15)


@given(k_new=st.integers(1, R), k_old=st.integers(1, R), seed=st.integers(0, 2**16))
def test_it_is_the_mean_over_principal_angles(k_new: int, k_old: int, seed: int) -> None:
    V, W = rows(k_new, seed), rows(k_old, seed + 1)
    cosines = torch.linalg.svdvals(V @ W.T)  # of the min(k_new, k_old) principal angles (Bjorck and Golub 1973)
    # Both sum k squares of numbers up to 1, each the result of inner products of length R.
    bound = 4 * R * R * torch.finfo(torch.float64).eps
    assert overlap(Basis({"m": V}), Basis({"m": W}))["m"] == pytest.approx(float(cosines.square().mean()), abs=bound)


def test_random_spans_overlap_by_chance() -> None:
    k, draws = 3, 200
    mean = sum(overlap(Basis({"m": rows(k, s)}), Basis({"m": rows(k, s + 10_000)}))["m"] for s in range(draws)) / draws
    # Each overlap lies in [0, 1], so its standard deviation is at most a half.
    assert mean == pytest.approx(k / R, abs=5 * 0.5 / math.sqrt(draws))


def test_zero_rows_do_not_count_and_modules_without_axes_have_no_overlap() -> None:
    padded = torch.cat([AXES[:1], torch.zeros(2, R, dtype=torch.float64)])
    new = Basis({"padded": padded, "gone": AXES[:0], "came": AXES[:1]})
    old = Basis({"padded": AXES[:2], "gone": AXES[:1], "came": AXES[:0]})
    assert overlap(new, old) == {"padded": 1.0}


def test_bases_may_differ_in_dtype() -> None:
    assert overlap(Basis({"m": AXES[:2]}), Basis({"m": AXES[:2].float()})) == {"m": 1.0}


def test_bases_of_other_models_are_refused() -> None:
    mine = Basis({"a": AXES[:1], "b": AXES[:1]}, fingerprints={"a": "one"})
    with pytest.raises(UnmatchedNamesError, match="among them b, c"):
        overlap(mine, Basis({"a": AXES[:1], "c": AXES[:1]}))
    with pytest.raises(ShapeMismatchError, match="b: rows of length 8 and 4"):
        overlap(mine, Basis({"a": AXES[:1], "b": AXES[:1, :4]}))
    with pytest.raises(StaleBasisError, match="a: the bases live in different decompositions"):
        overlap(mine, Basis({"a": AXES[:1], "b": AXES[:1]}, fingerprints={"a": "two"}))
