"""What a routed optimizer shows of its last step, against the formulas, and that looking changes nothing."""

import math

import pytest
import torch
from routed_toys import (
    SHAPES,
    gradients,
    make_basis,
    make_pairs,
    parameters,
    routed,
    same_bits,
    take,
    values,
)
from torch import Tensor

from projected_grpo.optimizer import RoutedOptimizer


def test_diagnostics_against_their_formulas() -> None:
    pairs, basis = make_pairs(), make_basis()
    optimizer = routed(pairs, "SGD", space="gradient", max_norm=1.0)
    empty = optimizer.diagnostics()
    assert empty.cos_pre is None
    assert empty.fired_share is None
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


def test_diagnostics_of_nothing_are_zero() -> None:
    """A step on zero gradients, and one on no gradients at all."""
    pairs = make_pairs()
    optimizer = RoutedOptimizer(torch.optim.SGD(parameters(pairs)), pairs, make_basis())
    for pair in pairs.values():
        pair.deployed.grad = torch.zeros_like(pair.deployed)
    optimizer.step()
    shown = optimizer.diagnostics()
    assert (shown.cos_pre, shown.hackward_share_update, shown.hackward_share_parameters) == (0.0, 0.0, 0.0)
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
