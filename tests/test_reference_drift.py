"""The gauges of drift: their definition on a case by hand, what they ignore, and when they warn."""

import math

import pytest
import torch

from reference.drift import OPPOSITION_LIMIT, RATIO_LIMIT, Drift, drift, quotient

# Two axes of R^4, and a row of zeros, which is no axis.
V = torch.eye(4, dtype=torch.float64)[[0, 1, 2]] * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)[:, None]
D = torch.tensor([6.0, -2.0, 3.0, 1.0], dtype=torch.float64)
Q = torch.tensor([-1.0, 2.0, 5.0, 7.0], dtype=torch.float64)
NOTHING = torch.zeros(4, dtype=torch.float64)


def of(d, q, rows=V):
    return drift({"m": d}, {"m": q}, {"m": rows})


def test_both_gauges_are_their_definitions():
    """V d = (6, -2), off V remain (0, 0, 3, 1); V q = (-1, 2)."""
    gauges = of(D, Q)
    assert gauges.ratio == ((6 + 2) / 2) / ((3 + 1) / 4)
    assert gauges.opposition == -(6 * -1 + -2 * 2) / (1 + 4)


def test_the_means_are_over_the_axes_and_coordinates_of_all_modules_with_rows():
    axis = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    d = {"a": D, "b": torch.tensor([5.0, 10.0], dtype=torch.float64), "c": D, "d": D}
    q = {"a": Q, "b": torch.tensor([1.0, 0.5], dtype=torch.float64), "c": Q, "d": Q}
    gauges = drift(d, q, {"d": V[:0], "a": V, "b": axis})  # d has no rows, c is not in the basis
    # V d = (6, -2 | 11), off V (0, 0, 3, 1 | -1.6, 1.2), V q = (-1, 2 | 1); a product of two takes three roundings.
    assert gauges.ratio == pytest.approx((19 / 3) / (6.8 / 6), rel=1e-15 * 8)
    assert gauges.opposition == pytest.approx(-(-6 - 4 + 11) / 6, rel=1e-15 * 8)


def test_neither_gauge_depends_on_the_scale_of_both_vectors():
    assert of(4 * D, 4 * Q) == of(D, Q)


def test_nothing_learned_is_no_drift():
    for rows in (V, V[:0], V[2:]):
        assert of(NOTHING, NOTHING, rows) == Drift(0.0, 0.0)
    assert drift({}, {}, {}) == Drift(0.0, 0.0)
    assert of(D, NOTHING).opposition == 0.0


def test_all_that_was_learned_along_the_basis_is_an_infinite_ratio():
    assert of(V[0], NOTHING).ratio == math.inf


def test_small_numerators_count():
    one, half = torch.tensor(1.0), torch.tensor(0.5)
    assert quotient(one, half) == 2.0
    assert quotient(-half, one) == -0.5
    assert quotient(0 * one, 0 * one) == 0.0


def test_either_gauge_above_its_limit_warns():
    assert not Drift(RATIO_LIMIT, OPPOSITION_LIMIT).warns
    assert Drift(RATIO_LIMIT + 1e-9, 0.0).warns
    assert Drift(0.0, OPPOSITION_LIMIT + 1e-9).warns
    assert (RATIO_LIMIT, OPPOSITION_LIMIT) == (0.5, 0.35)
