import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from invariants.bounds import gamma, orthonormality_defect, removed_error, trajectory_error, unit_roundoff
from invariants.cases import orthonormal_rows
from invariants.measurement import Measurement, elementwise, same_bits, worst


def test_exact_is_a_margin_of_zero_whatever_the_bound():
    assert Measurement(0.0, 0.0).margin == 0
    assert Measurement(0.0, 0.0).holds


@pytest.mark.parametrize(
    ("residual", "bound"),
    [(1.0, 0.0), (math.nan, 1.0), (math.nan, math.inf), (math.inf, 1.0), (math.inf, math.inf), (2.0, 1.0)],
)
def test_what_exceeds_its_bound_or_is_no_number_does_not_hold(residual, bound):
    assert not Measurement(residual, bound).holds


def test_an_infinite_bound_cannot_fail():
    assert not Measurement(1.0, math.inf).can_fail
    assert not Measurement(1.0, math.nan).can_fail
    assert Measurement(1.0, math.nan).holds


def test_a_bound_beyond_the_size_of_what_is_compared_cannot_fail():
    assert not Measurement(0.0, 2.0, scale=1.0).can_fail
    assert Measurement(0.0, 0.5, scale=1.0).can_fail
    assert Measurement(0.0, 0.0, scale=0.0).can_fail


def test_elementwise_reports_the_entry_that_is_worst_against_its_own_bound():
    measured = elementwise(
        torch.tensor([10.0, 2.0]), torch.tensor([100.0, 1.0]), "here", occurred={"something removed": True}
    )
    assert (measured.residual, measured.bound, measured.where) == (2.0, 1.0, "here, index 1")
    assert measured.occurred == {"something removed": 1}


def test_elementwise_names_the_step_and_the_index():
    residual = torch.zeros(3, 4)
    residual[2, 1] = 1.0
    assert elementwise(residual, 0.5, "m").where == "m, step 2, index 1"
    assert elementwise(residual.sum(), 0.5, "m").where == "m"


def test_the_worst_of_several_does_not_depend_on_their_order():
    fine, broken = Measurement(0.5, 1.0), Measurement(math.nan, math.inf)
    assert not worst([fine, broken]).holds
    assert not worst([broken, fine]).holds


def test_elementwise_sees_a_nan():
    assert not elementwise(torch.tensor([0.0, math.nan]), 1.0).holds


def test_same_bits_ignores_the_sign_of_zero_and_nothing_else():
    assert same_bits(torch.tensor([0.0, 1.0]), torch.tensor([-0.0, 1.0])).holds
    assert not same_bits(torch.tensor([1.0]), torch.tensor([1.0 + 2**-23])).holds
    assert not same_bits(torch.tensor([math.nan]), torch.tensor([math.nan])).holds


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0.5, 1)), min_size=1))
def test_worst_has_the_largest_margin_and_all_events(pairs):
    total = worst(Measurement(r, b, occurred={"seen": 1}) for r, b in pairs)
    assert worst([total], occurred={"seen": 1}).occurred == {"seen": 1}
    assert total.margin == max(Measurement(r, b).margin for r, b in pairs)
    assert total.occurred == {"seen": len(pairs)}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_unit_roundoff_is_half_the_distance_from_one_to_the_next_number(dtype):
    one, u = torch.ones((), dtype=dtype), unit_roundoff(dtype)
    assert one + 2 * u > one
    assert one + torch.tensor(u, dtype=dtype) == one  # a tie, rounded to even


def test_gamma_grows_and_gives_up_where_it_can_no_longer_judge():
    assert gamma(1, torch.float32) < gamma(2, torch.float32)
    assert gamma(1000, torch.bfloat16) == math.inf


def test_orthonormality_defect_counts_what_rounding_did_to_the_rows_and_not_zero_rows():
    V = torch.cat([orthonormal_rows(3, 16, torch.Generator().manual_seed(0)), torch.zeros(1, 16)])
    assert orthonormality_defect(V) < 1e-14
    # Each entry of V V^T moves by at most (2 u + u^2) |v_i| |v_j|, up to rounding; 3 x 3 of them in Frobenius norm.
    u = unit_roundoff(torch.bfloat16)
    assert 1e-5 < orthonormality_defect(V.bfloat16()) <= 3 * (2 * u + u**2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_removed_error_covers_what_a_naive_implementation_does(dtype):
    draw = torch.Generator().manual_seed(1)
    largest = 0.0
    for r, k in ((4, 1), (16, 3), (40, 7)):
        V = orthonormal_rows(k, r, draw).to(dtype)
        g = torch.randn(r, dtype=torch.float64, generator=draw).to(dtype)
        c = torch.stack(
            [sum((v * x for v, x in zip(row, g, strict=True)), start=torch.zeros((), dtype=dtype)) for row in V]
        )
        removed = sum((torch.relu(c[i]) * V[i] for i in range(k)), start=torch.zeros(r, dtype=dtype))
        exact = V.double().T @ torch.relu(V.double() @ g.double())
        error = (removed.double() - exact).abs()
        assert bool((error <= removed_error(g.double(), V.double(), 1.0, dtype)).all())
        largest = max(largest, float(error.max()))
    assert largest > 0


def test_trajectory_error_covers_momentum_run_forwards_and_in_parts():
    draw = torch.Generator().manual_seed(2)
    g = torch.randn(50, 8, generator=draw)
    whole, part_a, part_b = torch.zeros(8), torch.zeros(8), torch.zeros(8)
    buffers = [torch.zeros(8) for _ in range(3)]
    moved = 0.0
    for step in g:
        for p, buffer, gradient in zip(
            (whole, part_a, part_b), buffers, (step, step * 0.3, step - step * 0.3), strict=True
        ):
            buffer.mul_(0.9).add_(gradient)
            p.sub_(0.1 * buffer)
            moved = max(moved, float((0.1 * buffer).abs().max()))
    difference = float((part_a.double() + part_b.double() - whole.double()).abs().max())
    size = float(whole.abs().max())
    assert 0 < difference <= trajectory_error(50, 8, moved, size, torch.float32)
