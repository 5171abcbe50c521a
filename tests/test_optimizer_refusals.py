"""What a routed optimizer refuses at construction, each with its own error."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jaxtyping
import pytest
import torch
from routed_toys import Pairs, make_basis, make_pairs, parameters, routed
from torch import Tensor, nn
from torch.optim import Optimizer

from projected_grpo.basis import Basis
from projected_grpo.errors import (
    ClosureOptimizerError,
    DeviceMismatchError,
    DTypeMismatchError,
    ProjectedGRPOError,
    SettingError,
    ShapeMismatchError,
    SharedVectorError,
    StaleBasisError,
    UnmatchedNamesError,
    UnsupportedCombinationError,
    VectorNotOptimizedError,
)
from projected_grpo.optimizer import RoutedOptimizer
from projected_grpo.vectors import VectorPair

# What is refused at construction


class NeedsClosure(torch.optim.SGD):
    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        return super().step(closure)


class MovesInEval(torch.optim.SGD):
    def eval(self) -> None:
        """As schedule-free optimizers do."""


def _base(pairs: Pairs) -> Optimizer:
    return torch.optim.SGD(parameters(pairs))


V = torch.eye(1, 12)


@pytest.mark.parametrize(
    ("basis", "error", "message"),
    [
        ({"a.q": V, "c.q": V}, UnmatchedNamesError, "1 of 2 names .*: c.q; adapted modules are called a.q, a.v, b.q"),
        ({"a.q": torch.eye(1, 11)}, ShapeMismatchError, r"a.q: the deployed vector is \(12,\) and V is \(1, 11\)"),
        ({"a.q": V.double()}, DTypeMismatchError, r"basis.to\(dtype=torch.float32\)"),
    ],
)
def test_a_basis_that_does_not_fit(basis: dict[str, Tensor], error: type[ProjectedGRPOError], message: str) -> None:
    pairs = make_pairs()
    with pytest.raises(error, match=message):
        RoutedOptimizer(_base(pairs), pairs, Basis(basis))


def test_a_basis_on_another_device() -> None:
    pairs = {"a.q": VectorPair(nn.Parameter(torch.zeros(12, device="meta")), None)}
    with pytest.raises(DeviceMismatchError, match=r"basis.to\(device='meta'\)"):
        RoutedOptimizer(_base(pairs), pairs, Basis({"a.q": V}), intervention="erase")


def test_vectors_that_the_base_does_not_hold() -> None:
    pairs = make_pairs()
    without = [p for p in parameters(pairs) if p is not pairs["b.q"].deployed]
    with pytest.raises(VectorNotOptimizedError, match=r"b\.q: .* does not hold the deployed vector"):
        RoutedOptimizer(torch.optim.SGD(without), pairs, make_basis())
    deployed = [pair.deployed for pair in pairs.values()]
    with pytest.raises(VectorNotOptimizedError, match=r"a\.q: .* does not hold the quarantine vector"):
        RoutedOptimizer(torch.optim.SGD(deployed), pairs, make_basis())
    RoutedOptimizer(torch.optim.SGD(deployed), pairs, make_basis(), intervention="erase")


def test_parameters_that_were_replaced_since() -> None:
    """As by something that prepares a model after the optimizer was built: no gradient would ever arrive."""
    pairs = make_pairs()
    optimizer = routed(pairs)
    optimizer.param_groups[0]["params"] = [nn.Parameter(p.detach().clone()) for p in parameters(pairs)]
    with pytest.raises(VectorNotOptimizedError, match=r"a\.q: the base optimizer does not hold the deployed vector"):
        optimizer.step()


def test_shared_vectors() -> None:
    pairs = make_pairs()
    shared = {**pairs, "tied": pairs["a.q"]}
    with pytest.raises(SharedVectorError, match=r"tied and a\.q share a vector"):
        RoutedOptimizer(_base(pairs), shared, make_basis())
    both = {"a.q": VectorPair(pairs["a.q"].deployed, pairs["a.q"].deployed)}
    with pytest.raises(SharedVectorError, match=r"a\.q and a\.q"):
        RoutedOptimizer(_base(pairs), both, Basis({"a.q": V}))


def test_route_needs_a_quarantine() -> None:
    pairs = make_pairs(quarantine=False)
    with pytest.raises(UnsupportedCombinationError, match=r"a\.q has no quarantine vector"):
        RoutedOptimizer(_base(pairs), pairs, make_basis())


@pytest.mark.parametrize("clip", ["joint", "separate", "deployed_only"])
@pytest.mark.parametrize("space", ["update", "displacement"])
def test_only_gradient_space_has_a_choice_of_clip(space: str, clip: str) -> None:
    with pytest.raises(UnsupportedCombinationError, match=f"clip='{clip}' has no meaning in {space} space"):
        routed(make_pairs(), space=space, clip=clip, max_norm=1.0)


def test_bases_that_cannot_be_routed() -> None:
    pairs = make_pairs()
    for base in (NeedsClosure(parameters(pairs)), torch.optim.LBFGS(parameters(pairs))):
        with pytest.raises(ClosureOptimizerError, match=f"{type(base).__name__}.step"):
            RoutedOptimizer(base, pairs, make_basis())
    with pytest.raises(UnsupportedCombinationError, match="MovesInEval has an eval"):
        RoutedOptimizer(MovesInEval(parameters(pairs)), pairs, make_basis())
    RoutedOptimizer(MovesInEval(parameters(pairs)), pairs, make_basis(), space="gradient")


@pytest.fixture
def unchecked_types() -> Iterator[None]:
    """Own errors, not beartype's, which real callers don't have."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"intervention": "delete"}, "intervention is 'delete'; it must be one of none, erase, route"),
        ({"space": "outer"}, "space is 'outer'"),
        ({"clip": "after", "space": "gradient"}, "clip is 'after'"),
        ({"max_norm": 0.0}, "max_norm is 0.0"),
        ({"max_norm": math.inf}, "max_norm is inf"),
    ],
)
def test_settings_that_mean_nothing(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        routed(make_pairs(), **options)


# An adapted model instead of vectors


def test_a_model_brings_its_vectors_and_fingerprints(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, model = make_pairs(), nn.Linear(1, 1)
    adapter = pytest.importorskip("projected_grpo.adapter")
    monkeypatch.setattr(adapter, "routed_vectors", lambda _: pairs, raising=False)
    monkeypatch.setattr(adapter, "fingerprints", lambda _: dict.fromkeys(pairs, "f00d"), raising=False)
    known = Basis(dict(make_basis()), fingerprints={"a.q": "f00d"})
    optimizer = RoutedOptimizer(_base(pairs), model, known)
    assert optimizer.vectors == pairs
    stale = Basis(dict(make_basis()), fingerprints={"a.v": "beef"})
    with pytest.raises(StaleBasisError, match=r"a\.v"):
        RoutedOptimizer(_base(pairs), model, stale)
    with pytest.raises(StaleBasisError, match=r"a\.v"):
        optimizer.refresh(stale)
