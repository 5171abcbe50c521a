"""Windup: under erase the optimizer's point runs ahead of the model that is seen, and `retained` bounds it."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from routed_toys import SPACES, make_pairs, routed, same_bits, take, values
from torch import nn

import reference
from projected_grpo.basis import Basis
from projected_grpo.errors import SettingError, UnsupportedCombinationError
from projected_grpo.optimizer import RoutedOptimizer
from projected_grpo.routing import Routing
from projected_grpo.split import SplitRule
from projected_grpo.vectors import VectorPair

LR, STEPS = 0.02, 400
TARGET = torch.tensor([math.sqrt(48) / (LR * STEPS), 1.0], dtype=torch.float64)  # on the axis of V, and off it


def pull(space: str, retained: float, *, back: int = 0) -> tuple[RoutedOptimizer, list[float], list[float]]:
    """Gradient descent on |deployed - TARGET|^2 / 2, whose first coordinate is hack-ward; then `back` steps in which
    that coordinate is pulled to the other side. The windup, and the deployed vector along V, after every step."""
    pair = VectorPair(nn.Parameter(torch.zeros(2, dtype=torch.float64)), None)
    basis = Basis({"m": torch.tensor([[-1.0, 0.0]], dtype=torch.float64)})
    optimizer = RoutedOptimizer(
        torch.optim.SGD([pair.deployed], lr=LR), {"m": pair}, basis, intervention="erase", space=space,
        retained=retained,
    )  # fmt: skip
    windup, along = [], []
    for step in range(STEPS + back):
        target = TARGET if step < STEPS else TARGET * torch.tensor([-1.0, 1.0])
        # A step down this gradient moves toward TARGET; -V is the direction of the axis, so V g > 0: hack-ward.
        pair.deployed.grad = pair.deployed.detach() - target
        optimizer.step()
        windup.append(optimizer.diagnostics().windup or 0.0)
        along.append(float(pair.deployed.detach()[0]))
    return optimizer, windup, along


@pytest.mark.parametrize("space", ["update", "displacement"])
def test_the_point_of_a_quadratic_runs_away_seven_times_as_far_as_the_model(space: str) -> None:
    """The model never sees the hack-ward coordinate h, so the gradient along it stays -h and the point gains lr h at
    every step, n lr h = sqrt(48) in all, while off V it converges to the target: 1 - (1 - lr)^n. So the ratio is
    sqrt(48 + 1) = 7, but for the 3e-4 that is missing off V, and grows linearly from then on."""
    _, windup, along = pull(space, 1.0)
    for n in (1, STEPS // 2, STEPS):
        learned = 1 - (1 - LR) ** n
        assert windup[n - 1] == pytest.approx(math.hypot(n * LR * float(TARGET[0]), learned) / learned, rel=1e-9)
    assert windup[-1] == pytest.approx(7.0, rel=1e-3)
    assert along == [0.0] * STEPS


@pytest.mark.parametrize("retained", [0.5, *(pytest.param(share, marks=pytest.mark.long) for share in (0.0, 0.9))])
@pytest.mark.parametrize("space", ["update", "displacement"])
def test_a_share_below_one_bounds_it(space: str, retained: float) -> None:
    """What the point hides, D, goes to retained (D + lr h), so it never exceeds retained lr h / (1 - retained)."""
    _, windup, along = pull(space, retained)
    hidden = retained * LR * float(TARGET[0]) / (1 - retained)
    learned = 1 - (1 - LR) ** STEPS
    assert windup[-1] == pytest.approx(math.hypot(hidden, learned) / learned, rel=1e-9)
    assert windup[-1] < 1.02
    assert along == [0.0] * STEPS


def test_what_was_wound_up_has_to_be_unwound_before_the_model_follows() -> None:
    """In displacement space, a pull of the same strength to the other side moves the model at once where nothing was
    retained, and after as many steps as were hidden where all of it was."""
    _, _, forgetful = pull("displacement", 0.0, back=10)
    assert forgetful[STEPS] < -LR * float(TARGET[0]) / 2
    _, _, wound_up = pull("displacement", 1.0, back=STEPS + 10)
    first = next(step for step, x in enumerate(wound_up) if x < -1e-9)
    assert first == 2 * STEPS


@given(seed=st.integers(0, 10**6), space=st.sampled_from(["update", "displacement"]), retained=st.floats(0, 1),
       gate=st.sampled_from(["one_sided", "no_gate", "reverse", "predictable"]), preserve=st.booleans(),
       decay=st.sampled_from([0.0, 0.2]))  # fmt: skip
def test_the_package_is_the_specification(
    seed: int, space: str, retained: float, gate: Any, preserve: bool, decay: float
) -> None:
    draw = torch.Generator().manual_seed(seed)
    V = torch.linalg.qr(torch.randn(8, 3, generator=draw, dtype=torch.float64))[0].T.contiguous()
    start = torch.randn(8, generator=draw, dtype=torch.float64)
    pair = VectorPair(nn.Parameter(start.clone()), None)
    rule = {"gate": gate, "preserve_magnitude": preserve}
    same: dict[str, Any] = {"intervention": "erase", "space": space, "retained": retained}
    base = torch.optim.SGD([pair.deployed], lr=0.1, momentum=0.9, weight_decay=decay)
    optimizer = RoutedOptimizer(base, {"m": pair}, Basis({"m": V}), rule=SplitRule(**rule), **same)
    routing = reference.Routing(
        optimizer=reference.SGD(lr=0.1, momentum=0.9, weight_decay=decay), rule=reference.SplitRule(**rule), **same
    )
    state = reference.initial(routing, {"m": start})
    for _ in range(6):
        g = torch.randn(8, generator=draw, dtype=torch.float64)
        pair.deployed.grad = g
        optimizer.step()
        state = reference.routed_step(routing, state, {"m": g}, {"m": V})
        torch.testing.assert_close(pair.deployed.detach(), state.deployed["m"], rtol=1e-10, atol=1e-10)
        ratio = float((state.point["m"] - start).norm() / (state.deployed["m"] - start).norm())
        assert optimizer.diagnostics().windup == pytest.approx(ratio, rel=1e-9)


def test_all_of_it_retained_is_the_point_itself() -> None:
    pairs, plain = make_pairs(), make_pairs()
    take(routed(pairs, intervention="erase", space="update", retained=1.0), pairs, range(4))
    take(routed(plain, intervention="erase", space="update"), plain, range(4))
    assert same_bits(values(pairs), values(plain))


@pytest.mark.parametrize("space", SPACES)
def test_only_erase_outside_gradient_space_has_a_windup(space: str) -> None:
    for arm in ("none", "erase", "route"):
        pairs = make_pairs()
        optimizer = routed(pairs, intervention=arm, space=space)
        assert optimizer.diagnostics().windup is None
        take(optimizer, pairs, range(2))
        shown = optimizer.diagnostics().windup
        assert (shown is not None) == (arm == "erase" and space != "gradient")
        assert shown is None or shown > 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"intervention": "route"}, UnsupportedCombinationError, r"retained=0\.5 has no meaning under route in displ"),
        ({"intervention": "none"}, UnsupportedCombinationError, "no meaning under none in displacement space"),
        ({"intervention": "erase", "space": "gradient"}, UnsupportedCombinationError, "under erase in gradient space"),
        ({"intervention": "erase", "retained": 1.5}, SettingError, r"retained is 1\.5; it is a share, from 0 to 1"),
        ({"intervention": "erase", "retained": -0.1}, SettingError, "it is a share"),
        ({"intervention": "erase", "retained": math.nan}, SettingError, "it is a share"),
    ],
)
def test_a_share_that_means_nothing_is_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Routing(**{"retained": 0.5, **options})


def test_the_specification_refuses_it_too() -> None:
    for arm, space in (("route", "update"), ("none", "displacement"), ("erase", "gradient")):
        with pytest.raises(ValueError, match="only erase outside gradient space"):
            reference.Routing(optimizer=reference.SGD(lr=0.1), intervention=arm, space=space, retained=0.5)


def test_the_settings_say_what_is_retained() -> None:
    assert str(Routing(intervention="erase", retained=0.25)).endswith("overshoot 1, 0.25 of what is dropped retained")
    assert "retained" not in str(Routing(intervention="erase"))
