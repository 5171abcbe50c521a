"""What a routed optimizer shows of its last step, against the formulas, and that looking changes nothing."""

import math

import pytest
import torch
from routed_toys import (
    SHAPES,
    SPACES,
    gradients,
    make_basis,
    make_pairs,
    parameters,
    routed,
    same_bits,
    take,
    values,
)
from torch import Tensor, nn

from projected_grpo.basis import Basis
from projected_grpo.diagnostics import DRIFT_OPPOSITION_LIMIT, DRIFT_RATIO_LIMIT, Diagnostics
from projected_grpo.optimizer import RoutedOptimizer
from projected_grpo.vectors import VectorPair
from reference import drift


def test_diagnostics_against_their_formulas() -> None:
    pairs, basis = make_pairs(), make_basis()
    optimizer = routed(pairs, "SGD", space="gradient", max_norm=1.0)
    empty = optimizer.diagnostics()
    assert empty.cos_pre is None
    assert empty.fired_share is None
    assert empty.warnings == []
    start = values(pairs)
    take(optimizer, pairs, range(2))
    before = values(pairs)
    take(optimizer, pairs, range(2, 3))
    g, shown = gradients(2), optimizer.diagnostics()
    covered = [name for name, (k, _) in SHAPES.items() if k]

    def share(x: dict[str, Tensor]) -> float:
        hackward = sum(float((basis[name] @ x[name]).relu().square().sum()) for name in covered)
        return math.sqrt(hackward / sum(float(x[name].square().sum()) for name in covered))

    coefficients = torch.cat([basis[name] @ g[name] for name in covered])
    assert shown.cos_pre == pytest.approx(share(g), rel=1e-5)
    assert shown.cos_pre_null == pytest.approx(math.sqrt(6 / (2 * 31)))
    assert (shown.fired, shown.axes) == (int((coefficients > 0).sum()), 6)
    assert shown.fired_share == shown.fired / 6
    assert 0 < shown.fired < 6
    assert shown.grad_norm_pre_clip == pytest.approx(math.sqrt(sum(float(x.square().sum()) for x in g.values())))
    assert shown.grad_norm_post_clip == pytest.approx(1.0, rel=1e-5)
    assert shown.hackward_share_gradient < 1e-6
    after = {name: pair.deployed.detach() for name, pair in pairs.items()}
    update = {name: before[name][0] - after[name] for name in pairs}
    assert shown.hackward_share_update == pytest.approx(share(update), rel=1e-3, abs=1e-6)
    displacement = {name: start[name][0] - after[name] for name in pairs}
    assert shown.hackward_share_parameters == pytest.approx(share(displacement), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_the_drift_gauges_are_the_specifications(space: str, dtype: torch.dtype) -> None:
    pairs = {
        name: VectorPair(*(nn.Parameter(v.detach().to(dtype)) for v in pair if v is not None))
        for name, pair in make_pairs().items()
    }
    rows = make_basis().to(dtype=dtype)
    optimizer = RoutedOptimizer(torch.optim.SGD(parameters(pairs), lr=0.1), pairs, rows, space=space)
    start = {name: pair.deployed.detach().clone() for name, pair in pairs.items()}
    for step in range(3):
        for name, g in gradients(step).items():
            pairs[name].deployed.grad = g.to(dtype)
        optimizer.step()
        shown = optimizer.diagnostics()
        displacement = {name: (pair.deployed.detach() - start[name]).double() for name, pair in pairs.items()}
        quarantine = {name: pair.quarantine.detach().double() for name, pair in pairs.items()}
        exact = drift(displacement, quarantine, {name: V.double() for name, V in rows.items()})
        rel = 64 * torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
        rounded = torch.finfo(dtype).eps  # what is off V is stored in the dtype of the vectors
        assert shown.drift_ratio == pytest.approx(exact.ratio, rel=rel + rounded)
        assert shown.drift_opposition == pytest.approx(exact.opposition, rel=rel, abs=rel)


def noisy_run(space: str, *, paired: bool) -> Diagnostics:
    """A constant learning rate on something to learn off the basis, and noise everywhere; 201 steps, one-sided."""
    draw = torch.Generator().manual_seed(4)
    V = torch.linalg.qr(torch.randn(64, 8, generator=draw))[0].T
    signal = torch.randn(64, generator=draw)
    signal -= V.T @ (V @ signal)
    pair = VectorPair(nn.Parameter(torch.zeros(64)), nn.Parameter(torch.zeros(64)))
    optimizer = RoutedOptimizer(torch.optim.SGD([*pair], lr=0.01), {"m": pair}, Basis({"m": V}), space=space)
    noise = torch.zeros(64)
    for step in range(201):  # odd, so that pairs do not cancel to rounding
        noise = -noise if paired and step % 2 else torch.randn(64, generator=draw)
        pair.deployed.grad = 0.05 * signal + noise
        optimizer.step()
    return optimizer.diagnostics()


@pytest.mark.parametrize("paired", [True, False])
def test_the_gauges_flag_rectified_noise_and_no_run_that_rectifies_what_it_learned(paired: bool) -> None:
    for space in ("gradient", "update"):
        flagged = noisy_run(space, paired=paired)
        assert flagged.drift_ratio > DRIFT_RATIO_LIMIT
        assert flagged.drift_opposition > DRIFT_OPPOSITION_LIMIT
        assert [told.split()[0] for told in flagged.warnings] == ["drift_ratio", "drift_opposition"]
    healthy = noisy_run("displacement", paired=paired)
    assert healthy.drift_ratio < DRIFT_RATIO_LIMIT / 2
    assert healthy.drift_opposition == pytest.approx(0, abs=1e-3)
    assert healthy.warnings == []


def test_diagnostics_of_nothing_are_zero() -> None:
    """A step on zero gradients, and one on no gradients at all."""
    pairs = make_pairs()
    optimizer = RoutedOptimizer(torch.optim.SGD(parameters(pairs)), pairs, make_basis())
    for pair in pairs.values():
        pair.deployed.grad = torch.zeros_like(pair.deployed)
    optimizer.step()
    shown = optimizer.diagnostics()
    assert (shown.cos_pre, shown.hackward_share_update, shown.hackward_share_parameters) == (0.0, 0.0, 0.0)
    assert (shown.drift_ratio, shown.drift_opposition) == (0.0, 0.0)
    optimizer.zero_grad()
    optimizer.step()
    assert optimizer.diagnostics().axes == 0


def test_looking_changes_nothing() -> None:
    runs = []
    for look in (True, False):
        pairs = make_pairs()
        optimizer = routed(pairs)
        torch.manual_seed(3)
        for step in range(4):
            take(optimizer, pairs, range(step, step + 1))
            if look:
                optimizer.diagnostics()
                optimizer.explain()
        runs.append((values(pairs), float(torch.rand(()))))
    assert same_bits(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]


def test_vectors_that_have_blown_up_do_not_read_as_clean():
    pair = VectorPair(torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(2)))
    base = torch.optim.SGD([*pair], lr=1e38, momentum=0.9)
    routed = RoutedOptimizer(base, {"m": pair}, Basis({"m": torch.tensor([[1.0, 0.0]])}), space="gradient")
    for _ in range(4):
        pair.deployed.grad = torch.tensor([-1.0, -1.0])
        routed.step()
    seen = routed.diagnostics()
    assert not pair.deployed.isfinite().all()
    assert not math.isfinite(seen.hackward_share_update)
    assert any("no longer finite" in warning for warning in seen.warnings)
