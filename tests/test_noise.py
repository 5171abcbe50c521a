"""What pure noise does to the deployed vectors along V, against the formulas of T20, and what is claimed of it."""

import math
from functools import cache
from typing import Any

import pytest
import torch
from base_optimizers import BASES
from torch import Tensor, nn

from projected_grpo.basis import Basis
from projected_grpo.claims import claims_of
from projected_grpo.optimizer import RoutedOptimizer
from projected_grpo.probes import measure
from projected_grpo.routing import Routing
from projected_grpo.split import SplitRule
from projected_grpo.vectors import VectorPair

AXES, LENGTH, STEPS, SIGMA, LR = 500, 520, 60, 0.5, 0.1
# Of the mean over independent axes, each of deviation at most lr sigma sqrt(t): five standard errors are exceeded with
# a probability of 2 exp(-25/2) = 7.5e-6 at most (what is kept of Gaussian coefficients is 1-Lipschitz in them, or
# given the past at most them: Gaussian concentration, Azuma).
LUCK = 5 * LR * SIGMA * math.sqrt(STEPS) / math.sqrt(AXES)
RATE = LR * SIGMA / math.sqrt(2 * math.pi)  # of an axis and step


@cache
def ends(gate: Any, space: str, base: str = "", arm: str = "route", mean: float = 0.0) -> Tensor:
    """V (deployed - start) after some steps of noise about a mean along each axis, (AXES,); under plain SGD unless
    another base is named."""
    draw = torch.Generator().manual_seed(5)
    V = torch.linalg.qr(torch.randn(LENGTH, AXES, generator=draw, dtype=torch.float64))[0].T.contiguous()
    pair = VectorPair(*(nn.Parameter(torch.zeros(LENGTH, dtype=torch.float64)) for _ in range(2)))
    built = BASES[base]([*pair]) if base else torch.optim.SGD([*pair], lr=LR)
    optimizer = RoutedOptimizer(
        built, {"m": pair}, Basis({"m": V}), intervention=arm, space=space, rule=SplitRule(gate=gate)
    )
    for _ in range(STEPS):
        pair.deployed.grad = SIGMA * torch.randn(LENGTH, generator=draw, dtype=torch.float64) + mean * V.sum(dim=0)
        optimizer.step()
    return V @ pair.deployed.detach()


@pytest.mark.parametrize("space", ["gradient", "update"])
def test_one_sided_noise_drifts_by_the_formula(space: str) -> None:
    """Under plain SGD an update is minus lr times its gradient, so both spaces drift alike: 24 sigma-rates in 60 steps,
    away from the hack."""
    drift = float(ends("one_sided", space).mean())
    assert abs(drift - RATE * STEPS) < LUCK
    assert RATE * STEPS > 10 * LUCK


@pytest.mark.parametrize("ratio", [-1.0, 0.5, 1.0])
def test_one_sided_drifts_by_the_formula_on_a_signal_too(ratio: float) -> None:
    """What is kept of c ~ N(mu, sigma^2) is minus relu(-c), of mean mu Phi(-mu/sigma) - sigma phi(mu/sigma): a signal
    along the hack hides the drift, and does not end it."""
    normal = torch.distributions.Normal(0.0, 1.0)
    density = math.exp(float(normal.log_prob(torch.tensor(ratio, dtype=torch.float64))))
    below = float(normal.cdf(torch.tensor(-ratio, dtype=torch.float64)))
    kept = SIGMA * (ratio * below - density)
    found = float(ends("one_sided", "gradient", mean=ratio * SIGMA).mean())
    assert abs(found + LR * STEPS * kept) < LUCK
    assert -LR * STEPS * kept > 2 * LUCK, "away from the hack, whatever the signal"


@pytest.mark.parametrize("gate", ["predictable", "no_gate", "reverse"])
def test_gates_that_are_linear_given_the_past_do_not_drift(gate: str) -> None:
    assert abs(float(ends(gate, "gradient").mean())) < LUCK
    deviation = float(ends(gate, "gradient").std()) / (LR * SIGMA * math.sqrt(STEPS))
    # The predictable gate keeps a half of the steps, after a first that it keeps whole; reverse keeps -c of each.
    expected = {"predictable": math.sqrt(0.5), "no_gate": 0.0, "reverse": 1.0}[gate]
    assert abs(deviation - expected) < 5 / math.sqrt(2 * AXES)


@pytest.mark.parametrize("gate", ["one_sided", "predictable"])
def test_a_displacement_that_is_split_once_drifts_by_the_root_of_the_steps(gate: str) -> None:
    total = float(ends(gate, "displacement").mean())
    most = LR * SIGMA * math.sqrt(STEPS / (2 * math.pi))
    assert abs(total) < most + LUCK
    assert abs(total - most) < LUCK or gate == "predictable"
    assert 2 * (most + LUCK) < RATE * STEPS


@pytest.mark.parametrize("space", ["gradient", "update", "displacement"])
@pytest.mark.parametrize("gate", ["one_sided", "no_gate", "reverse", "predictable"])
def test_what_is_claimed_to_be_unbiased_is(gate: Any, space: Any) -> None:
    claimed = []
    for base in ("SGD", "momentum", "AdamW"):
        routing = Routing(space=space, rule=SplitRule(gate=gate))
        holds = claims_of(routing, measure(BASES[base]([nn.Parameter(torch.zeros(8)) for _ in range(4)])))["unbiased"]
        claimed.append(holds.holds)
        if holds.holds:
            spread = float(ends("reverse", space, base, "none").square().mean().sqrt())
            assert abs(float(ends(gate, space, base).mean())) < 5 * spread / math.sqrt(AXES), base
    linear = gate != "one_sided" and (gate != "predictable" or space == "gradient")
    assert claimed == [linear, linear, gate == "no_gate" and space != "gradient"]
