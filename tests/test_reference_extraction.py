"""The hack basis: orthonormal axes, a vote on their orientation, floors, and gradients of one completion alone."""

import pytest
import torch
from torch import nn

from reference.extraction import basis_from_pairs, extract, isolated_gradient, oriented

PAIRS, R = 7, 10  # odd: seven signs cannot tie
U = torch.finfo(torch.float64).eps / 2  # unit roundoff
SINGULAR = torch.tensor([8.0, 6.0, 4.0, 3.0, 2.0, 1.0, 0.5], dtype=torch.float64)
# A singular vector of D + E turns by at most 2 |E| / gap; the SVD's own error is a small multiple of n u |D|.
TURN = 16 * R * U * 2 * SINGULAR[0] / 0.5
SHARED = torch.eye(R, dtype=torch.float64)[0]


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def differences(seed=0):
    """Rows (PAIRS, R) with the singular values above: distinct, the smallest gap 0.5."""
    left, right = torch.linalg.qr(randn(PAIRS, PAIRS, seed=seed)).Q, torch.linalg.qr(randn(R, PAIRS, seed=seed + 50)).Q
    return left * SINGULAR @ right.T


def basis_of(D, k=4, **floors):
    return extract({"m": D}, k, **floors)["m"]


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_orthonormal_and_span_what_the_pairs_differ_in_most(seed):
    D = differences(seed)
    V = basis_of(D)
    assert V.shape == (4, R)
    assert (V @ V.T - torch.eye(4)).norm() <= 16 * R * U
    assert (torch.linalg.vector_norm(D @ V.T, dim=0) - SINGULAR[:4]).norm() <= 16 * R * U * SINGULAR[0]


@pytest.mark.parametrize("seed", range(5))
def test_most_pairs_lie_on_the_positive_side_of_every_axis(seed):
    D = differences(seed)
    votes = (D @ basis_of(D, k=PAIRS).T > 0).sum(dim=0)
    assert (votes > PAIRS / 2).all()
    assert (votes < PAIRS).any()


@pytest.mark.parametrize("seed", range(5))
def test_swapping_hack_and_clean_flips_the_basis(seed):
    D = differences(seed)
    assert (basis_of(-D) + basis_of(D)).norm() <= TURN


@pytest.mark.parametrize("seed", range(5))
def test_permuting_the_pairs_changes_nothing(seed):
    D = differences(seed)
    order = torch.randperm(PAIRS, generator=torch.Generator().manual_seed(seed))
    assert not torch.equal(D[order], D)
    assert (basis_of(D[order]) - basis_of(D)).norm() <= TURN


def test_one_outlier_pair_cannot_flip_an_axis():
    D = torch.outer(torch.tensor([1.0, 1.1, 0.9, -100.0]).double(), SHARED)
    assert D.sum(dim=0) @ SHARED < 0
    assert basis_of(D, k=1)[0] @ SHARED > 0.99


def test_a_tie_is_decided_by_the_summed_projection():
    for weights, side in ([3.0, -1.0], 1), ([1.0, -3.0], -1):
        V = basis_of(torch.outer(torch.tensor(weights).double(), SHARED), k=1)
        assert side * (V[0] @ SHARED) > 0.99


def test_ties_are_decided_axis_by_axis():
    """Two axes with a tie each, whose sums differ in sign; over both axes together the first would win."""
    V = torch.eye(2, R, dtype=torch.float64)
    D = torch.tensor([[5.0, -3.0], [-1.0, 1.0]]).double() @ V
    assert torch.equal(oriented(V, D), V * torch.tensor([1.0, -1.0])[:, None])


def test_a_tie_without_a_sum_keeps_the_sign():
    D = torch.stack([SHARED, -SHARED])
    for V in (SHARED[None], -SHARED[None]):
        assert torch.equal(oriented(V, D), V)


def test_directions_that_no_pair_shows_get_no_axis():
    """Two copies of three pairs have rank three, although their SVD has six positive singular values."""
    D = differences()[:3].repeat(2, 1)
    assert (torch.linalg.svdvals(D)[3:] > 0).any()
    assert basis_of(D, k=6).shape == (3, R)
    assert basis_of(torch.zeros(4, R).double()).shape == (0, R)


def test_there_are_no_more_axes_than_pairs():
    assert basis_of(differences(), k=R).shape == (PAIRS, R)
    assert (basis_of(3 * SHARED[None]) - SHARED).norm() <= TURN


@pytest.mark.parametrize("kind", ["relative_floor", "global_floor"])
def test_a_higher_floor_keeps_fewer_of_the_same_axes(kind):
    D = differences()
    all_axes = basis_of(D, k=PAIRS)
    for floor, kept in {0.0: 7, 0.1: 6, 0.2: 5, 0.3: 4, 0.45: 3, 0.7: 2, 0.9: 1, 1.0: 1}.items():
        assert torch.equal(basis_of(D, k=PAIRS, **{kind: floor}), all_axes[:kept])


def test_only_the_global_floor_silences_a_quiet_module():
    both = {"loud": differences(), "quiet": 0.01 * differences(seed=1)}
    assert len(extract(both, 4, relative_floor=0.3)["quiet"]) == 4
    silenced = extract(both, 4, global_floor=0.1)
    assert silenced["quiet"].shape == (0, R)
    assert torch.equal(silenced["loud"], extract(both, 4)["loud"])


# Gradients of one completion


def linear_losses(rows, vectors):
    """Losses whose gradients in vectors["m"] are the rows, read through a graph of two modules."""
    return [lambda row=row: vectors["m"] @ row + (vectors["n"] ** 2).sum() for row in rows]


def two_modules():
    return {"m": nn.Parameter(randn(R)), "n": nn.Parameter(randn(3))}


def test_a_gradient_is_isolated_from_what_was_accumulated_before():
    vectors, rows = two_modules(), randn(2, R, seed=1)
    for p in vectors.values():
        p.grad = torch.full_like(p, 5.0)
    for row, loss in zip(rows, linear_losses(rows, vectors), strict=True):
        gradient = isolated_gradient(loss, vectors)
        assert torch.equal(gradient["m"], row)
        assert torch.equal(gradient["n"], 2 * vectors["n"])
    assert all((p.grad == 5.0).all() for p in vectors.values())


def test_the_basis_of_pairs_is_that_of_their_differences():
    vectors, hack, clean = two_modules(), differences() + SHARED, SHARED.repeat(PAIRS, 1)
    losses = zip(linear_losses(hack, vectors), linear_losses(clean, vectors), strict=True)
    basis = basis_from_pairs(list(losses), vectors, 4)
    assert torch.equal(basis["m"], basis_of(hack - clean))
    assert basis["n"].shape == (0, 3)


@pytest.mark.parametrize("kind", ["relative_floor", "global_floor"])
def test_the_basis_of_pairs_has_the_floors_that_it_is_given(kind):
    vectors, hack = two_modules(), differences()
    losses = list(zip(linear_losses(hack, vectors), linear_losses(torch.zeros_like(hack), vectors), strict=True))
    assert torch.equal(basis_from_pairs(losses, vectors, 4, **{kind: 0.7})["m"], basis_of(hack)[:2])


def test_a_descent_step_along_an_axis_makes_most_hacks_likelier():
    vectors, hack = two_modules(), differences()
    losses = linear_losses(hack, vectors)
    nothing = linear_losses(torch.zeros_like(hack), vectors)
    V = basis_from_pairs(list(zip(losses, nothing, strict=True)), vectors, 4)["m"]
    for axis in V:
        stepped = {**vectors, "m": vectors["m"] - 0.1 * axis}
        likelier = [after() < before() for after, before in zip(linear_losses(hack, stepped), losses, strict=True)]
        assert sum(likelier) > PAIRS / 2
