"""What an optimizer is, measured: linear, isotropic, separable, nonnegative."""

from typing import Any

import pytest
import torch
from base_optimizers import BASES, Own, vectors
from torch import nn

from projected_grpo import Basis, RoutedOptimizer, VectorPair
from projected_grpo.errors import UnmeasurableOptimizerError
from projected_grpo.probes import Measured, MeasureOnce, measure

#                 linear isotropic separable nonnegative
IS = {
    "SGD":            (True, True, True, True),
    "momentum":       (True, True, True, True),
    "nesterov":       (True, True, True, True),
    "decay":          (True, True, True, False),
    "overdampened":   (True, True, True, False),
    "AdamW":          (False, False, True, False),
    "Adagrad":        (False, False, True, False),
    "coupled":        (False, True, False, False),
    "noise":          (False, False, False, False),
    "l1":             (False, False, True, False),
    "late sign":      (False, False, True, False),
    "per coordinate": (True, False, True, False),
}  # fmt: skip


@pytest.mark.parametrize("name", BASES)
def test_what_an_optimizer_is(name: str) -> None:
    measured = measure(BASES[name](vectors()))
    assert measured.moved
    assert (measured.linear, measured.isotropic, measured.separable, measured.nonnegative) == IS[name]


def test_measuring_leaves_everything_alone() -> None:
    held = vectors()
    base = torch.optim.AdamW(held, lr=0.1)
    held[0].grad = torch.ones(3)
    base.step()
    seen = []
    base.register_step_pre_hook(lambda *_: seen.append(1))
    torch.optim.lr_scheduler.ConstantLR(base)  # replaces the instance's step
    before = [p.detach().clone() for p in held], base.state[held[0]]["exp_avg"].clone()
    torch.manual_seed(0)
    assert measure(base).separable
    after_measuring = torch.rand(())
    torch.manual_seed(0)
    assert torch.equal(after_measuring, torch.rand(()))
    assert all(torch.equal(p, old) for p, old in zip(held, before[0], strict=True))
    assert torch.equal(base.state[held[0]]["exp_avg"], before[1])
    assert list(base.state) == [held[0]]
    assert not seen


def test_a_learning_rate_of_zero() -> None:
    """A warm-up that stands at zero is measured at its initial rate; a plain zero moves nothing and claims nothing."""
    base = torch.optim.SGD(vectors(), lr=0.1)
    torch.optim.lr_scheduler.LambdaLR(base, lambda step: step / 10)
    assert base.param_groups[0]["lr"] == 0
    assert measure(base).linear
    assert measure(torch.optim.SGD(vectors(), lr=0.0)) == Measured(
        residuals=measure(torch.optim.SGD(vectors(), lr=0.0)).residuals
    )


def test_only_the_groups_that_matter_are_measured() -> None:
    first, second = vectors()
    base = torch.optim.SGD([{"params": [first]}, {"params": [second], "weight_decay": 0.1}], lr=0.1)
    assert not measure(base).nonnegative
    assert measure(base, {id(first)}).nonnegative


def test_what_cannot_be_measured_has_no_property() -> None:
    base = Own(vectors(), twist="fails")
    with pytest.raises(UnmeasurableOptimizerError, match=r"Own could not be run .*RuntimeError: needs a matrix"):
        measure(base)
    measured = MeasureOnce().of(base)
    assert not measured.linear
    assert "needs a matrix" in (measured.problem or "")
    pair = VectorPair(nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(4)))
    base = Own([*pair], twist="fails")
    optimizer = RoutedOptimizer(base, {"q": pair}, Basis({"q": torch.eye(1, 4)}), space="gradient")
    assert "needs a matrix" in optimizer.explain()
    assert "keeps_sum               no" in optimizer.explain()


def test_a_constructor_that_cannot_be_called_again() -> None:
    """Then the twin has the base's attributes, and a state that starts empty."""

    class Demanding(Own):
        def __init__(self, params: Any, twist: str, *, secret: int) -> None:
            super().__init__(params, twist=twist)
            self.secret = secret

    assert measure(Demanding(vectors(), "none", secret=1)).linear
    assert not measure(Demanding(vectors(), "coupled", secret=1)).separable


def test_a_measurement_is_repeated_when_options_change() -> None:
    base, measurement = torch.optim.SGD(vectors(), lr=0.1), MeasureOnce()
    first = measurement.of(base)
    base.param_groups[0]["lr"] = 0.05
    assert measurement.of(base) is first
    base.param_groups[0]["weight_decay"] = 0.1
    assert not measurement.of(base).nonnegative
