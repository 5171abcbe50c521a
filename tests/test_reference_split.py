"""The split: conservation, geometry, homogeneity, and what it does to noise."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reference import SplitRule, split

R, K = 16, 4
U = torch.finfo(torch.float64).eps / 2  # unit roundoff
GATES = ["one_sided", "no_gate", "reverse"]
SEEDS = range(5)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def problem(seed):
    """g (R,) and orthonormal V (K, R) whose coefficients V g have alternating signs, so that every gate matters."""
    g, V = randn(R, seed=seed), torch.linalg.qr(randn(R, K, seed=seed + 100)).Q.T
    sign = torch.sign(V @ g) * torch.tensor([1, -1] * (K // 2))
    return g, V * sign[:, None]


def rounding(g, V, gain=1.0):
    """Bound on an error in V kept: V's defect of orthonormality, and four products of at most R + K terms."""
    defect = (V @ V.T - torch.eye(len(V), dtype=g.dtype)).norm()
    return gain * (defect + 4 * (R + K) * U) * g.norm()


finite = st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-6)  # no product becomes subnormal


@given(
    g=st.lists(finite, min_size=R, max_size=R),
    seed=st.integers(0, 10**6),
    gate=st.sampled_from(GATES),
    overshoot=st.sampled_from([1.0, 1.1, 1.5]),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_conservation(g, seed, gate, overshoot, dtype):
    """|fl(kept + removed) - g| <= 2 u max(|g|, |removed|, |kept|), elementwise."""
    g, V = torch.tensor(g, dtype=dtype), problem(seed)[1].to(dtype)
    kept, removed, _ = split(g, V, SplitRule(gate=gate, overshoot=overshoot))
    largest = torch.stack([g, removed, kept]).abs().amax(dim=0)
    assert ((kept + removed - g).abs() <= torch.finfo(dtype).eps * largest).all()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("gate", ["one_sided", "no_gate"])
def test_kept_and_removed_are_perpendicular(gate, seed):
    g, V = problem(seed)
    kept, removed, _ = split(g, V, SplitRule(gate=gate))
    assert removed.any()
    assert abs(kept @ removed) <= rounding(g, V) * g.norm()
    assert abs(kept.norm() ** 2 + removed.norm() ** 2 - g.norm() ** 2) <= 2 * rounding(g, V) * g.norm()


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_kept_along_the_basis(seed):
    """one_sided keeps -relu(-c), no_gate keeps 0, reverse keeps -c."""
    g, V = problem(seed)
    c = V @ g
    assert (c > 0).any()
    assert (c < 0).any()
    for gate, expected in {"one_sided": -torch.relu(-c), "no_gate": 0 * c, "reverse": -c}.items():
        kept, _, coefficients = split(g, V, SplitRule(gate=gate))
        assert torch.equal(coefficients, c)
        assert (V @ kept - expected).norm() <= rounding(g, V, gain=2)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rule", [SplitRule(), SplitRule(gate="no_gate")], ids=str)
def test_a_second_split_removes_nothing(rule, seed):
    g, V = problem(seed)
    first = split(g, V, rule)
    assert first.removed.any()
    assert split(first.kept, V, rule).removed.norm() <= rounding(g, V)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_second_split_after_an_overshoot_removes_exactly_nothing(seed):
    g, V = problem(seed)
    rule = SplitRule(overshoot=1.5)
    first = split(g, V, rule)
    assert first.removed.any()
    assert not split(first.kept, V, rule).removed.any()


@pytest.mark.parametrize("preserve_magnitude", [False, True])
@pytest.mark.parametrize("gate", GATES)
def test_homogeneity_is_exact_for_powers_of_two(gate, preserve_magnitude):
    g, V = problem(0)
    rule = SplitRule(gate=gate, overshoot=1.1, preserve_magnitude=preserve_magnitude)
    once = split(g, V, rule)
    for s in (2.0**-30, 0.5, 2.0, 2.0**30):
        assert all(torch.equal(a, s * b) for a, b in zip(split(s * g, V, rule), once, strict=True))


@pytest.mark.parametrize("gate", GATES)
def test_only_linear_gates_are_additive(gate):
    """The one-sided split of a sum is not the sum of the splits: it acts once, on the accumulated gradient."""
    (g, V), h = problem(0), -0.5 * problem(0)[0]
    rule = SplitRule(gate=gate)
    gap = (split(g + h, V, rule).removed - split(g, V, rule).removed - split(h, V, rule).removed).norm()
    if gate == "one_sided":
        assert gap > 0.1 * g.norm()
    else:
        assert gap <= 3 * rounding(g, V, gain=2)


def test_preserved_magnitude_is_the_gradients():
    g, V = problem(0)
    plain, kept = split(g, V).kept, split(g, V, SplitRule(preserve_magnitude=True)).kept
    assert plain.norm() < 0.99 * g.norm()
    assert abs(kept.norm() - g.norm()) <= 2 * R * U * g.norm()
    assert torch.allclose(kept / g.norm(), plain / plain.norm(), rtol=0, atol=4 * R * U)


def test_preserved_magnitude_of_nothing_is_nothing():
    g, V = torch.tensor([3.0, 0, 0]), torch.eye(3)[:1]
    assert not split(g, V, SplitRule(preserve_magnitude=True)).kept.any()


@pytest.mark.parametrize("V", [torch.zeros(0, R), torch.zeros(2, R)], ids=["no rows", "zero rows"])
@pytest.mark.parametrize("gate", GATES)
def test_without_a_basis_everything_is_kept(gate, V):
    g, _ = problem(0)
    kept, removed, _ = split(g, V.double(), SplitRule(gate=gate))
    assert torch.equal(kept, g)
    assert not removed.any()


@pytest.mark.parametrize(
    ("gate", "open", "said"), [("predictable", None, "needs to be told"), ("no_gate", [True, False], "does not ask")]
)
def test_only_the_predictable_gate_is_told_which_axes_are_open(gate, open, said):
    told = None if open is None else torch.tensor(open)
    with pytest.raises(ValueError, match=f"^gate '{gate}' {said} which axes are open$"):
        split(torch.ones(2), torch.eye(2), SplitRule(gate=gate), open=told)


def test_an_unknown_gate_is_refused():
    with pytest.raises(ValueError, match="gate 'both' is not one of one_sided, no_gate, reverse"):
        split(*problem(0), SplitRule(gate="both"))


@pytest.mark.parametrize("gate", ["one_sided", "no_gate"])
def test_null_baseline(gate):
    """E |removed|^2 / |g|^2 = k / 2r one-sided and k / r without a gate, for isotropic g; zero rows do not count.

    On the unit sphere E u_i^4 = 3 / r(r + 2) and E u_i^2 u_j^2 = 1 / r(r + 2), and each axis passes the gate with
    probability p, independently: E X^2 = (3 k p + k (k - 1) p^2) / r(r + 2).
    """
    N, p = 4000, {"one_sided": 0.5, "no_gate": 1.0}[gate]
    V = torch.cat([problem(0)[1], torch.zeros(1, R)])
    removed = torch.stack([split(g, V, SplitRule(gate=gate)).removed / g.norm() for g in randn(N, R, seed=1)])
    variance = (3 * K * p + K * (K - 1) * p**2) / (R * (R + 2)) - (K * p / R) ** 2
    assert abs((removed**2).sum(dim=1).mean() - K * p / R) <= 5 * math.sqrt(variance / N)


@pytest.mark.parametrize("mu", [0.0, 0.5, -0.5])
def test_rectification_bias(mu):
    """Along an axis with c ~ N(mu, 1) the removed part has mean mu Phi(mu) + phi(mu): not 0 at mu = 0."""
    N, axis = 20_000, torch.eye(1, 2, dtype=torch.float64)
    expected = mu * (1 + math.erf(mu / math.sqrt(2))) / 2 + math.exp(-(mu**2) / 2) / math.sqrt(2 * math.pi)
    parts = [split(g, axis) for g in randn(N, 2, seed=2) + mu]
    removed, kept = (torch.stack(part)[:, 0].mean() for part in list(zip(*parts, strict=True))[1::-1])
    within = 5 * math.sqrt((1 + mu**2) / N)  # Var relu(c) <= E c^2 = 1 + mu^2, and the same for c - relu(c)
    assert expected > 2 * within
    assert abs(removed - expected) <= within
    assert abs(kept - (mu - expected)) <= within
