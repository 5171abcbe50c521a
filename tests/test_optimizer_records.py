"""What a step has found and fed is recorded alike in every space and under every intervention."""

import math
from itertools import product

import pytest
import torch
from routed_toys import INTERVENTIONS, SPACES, gradients, make_basis, make_pairs, routed, take, values
from torch import Tensor

BASIS = make_basis()


def hackward_share(x: dict[str, Tensor]) -> float:
    """sqrt(sum relu(V x)^2 / |x|^2) over the modules that have rows."""
    covered = {name: V for name, V in BASIS.items() if len(V)}
    hackward = sum(float((V @ x[name]).relu().square().sum()) for name, V in covered.items())
    return math.sqrt(hackward / sum(float(x[name].square().sum()) for name in covered))


@pytest.mark.parametrize("max_norm", [None, 1.0])
@pytest.mark.parametrize(("space", "intervention"), list(product(SPACES, INTERVENTIONS)))
def test_the_accumulated_and_the_fed_gradient(space: str, intervention: str, max_norm: float | None) -> None:
    """Clipping scales both; only in gradient space is something else fed than what has accumulated."""
    pairs = make_pairs()
    optimizer = routed(pairs, space=space, intervention=intervention, max_norm=max_norm)
    take(optimizer, pairs, range(2))
    shown, g = optimizer.diagnostics(), gradients(1)
    assert shown.cos_pre == pytest.approx(hackward_share(g), rel=1e-5)
    assert shown.fired == sum(int((V @ g[name] > 0).sum()) for name, V in BASIS.items())
    split = space == "gradient" and intervention != "none"
    assert shown.hackward_share_gradient == pytest.approx(0.0 if split else shown.cos_pre, rel=1e-5, abs=1e-6)
    norm = math.sqrt(sum(float(x.square().sum()) for x in g.values()))
    assert norm > 1
    assert shown.grad_norm_pre_clip == pytest.approx(norm, rel=1e-6)
    if max_norm is not None:
        assert shown.grad_norm_post_clip <= max_norm * (1 + 1e-6)


@pytest.mark.parametrize("space", SPACES)
def test_a_module_without_a_gradient_counts_for_nothing_that_is_recorded(space: str) -> None:
    pairs = make_pairs()
    optimizer = routed(pairs, "SGD", space=space)
    take(optimizer, pairs, range(2))
    before = values(pairs)
    take(optimizer, pairs, range(2, 3), without="a.v")
    g, shown = gradients(2), optimizer.diagnostics()
    with_rows = [name for name, V in BASIS.items() if len(V) and name != "a.v"]
    hackward = sum(float((BASIS[name] @ g[name]).relu().square().sum()) for name in with_rows)
    wanted = math.sqrt(hackward / sum(float(g[name].square().sum()) for name in with_rows))
    assert shown.cos_pre == pytest.approx(wanted, rel=1e-5)
    assert shown.axes == sum(len(BASIS[name]) for name in with_rows)

    moved = {name: before[name][0] - pair.deployed.detach() for name, pair in pairs.items()}
    assert shown.hackward_share_update == pytest.approx(hackward_share(moved), rel=1e-3, abs=1e-6)
    assert torch.equal(before["a.v"][0], pairs["a.v"].deployed)
