"""What a routed optimizer refuses at construction, each with its own error."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from routed_toys import Pairs, make_basis, make_pairs, parameters, routed, same_bits, take, unchecked_types, values
from torch import Tensor, nn
from torch.optim import Optimizer

from projected_grpo.basis import Basis
from projected_grpo.errors import (
    ArgumentTypeError,
    ClosureOptimizerError,
    DeviceMismatchError,
    DTypeMismatchError,
    ProjectedGRPOError,
    SettingError,
    ShapeMismatchError,
    SharedVectorError,
    StaleBasisError,
    StateMismatchError,
    UnmatchedNamesError,
    UnsupportedCombinationError,
    VectorNotOptimizedError,
)
from projected_grpo.optimizer import RoutedOptimizer
from projected_grpo.posthoc import project_out
from projected_grpo.split import SplitRule
from projected_grpo.vectors import VectorPair

# What is refused at construction


class NeedsClosure(torch.optim.SGD):
    def step(self, closure: Callable[[], Any]) -> Any:
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
        ({"a.q": torch.eye(1, 11)}, ShapeMismatchError, r"a.q: the deployed vector is \(12,\), its basis has r = 11"),
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"intervention": "delete"}, "intervention is 'delete'; it must be one of none, erase, route"),
        ({"space": "outer"}, "space is 'outer'"),
        ({"clip": "after", "space": "gradient"}, "clip is 'after'"),
        ({"max_norm": 0.0}, "max_norm is 0.0"),
        ({"max_norm": math.inf}, "max_norm is inf"),
        ({"max_norm": "1"}, "max_norm is '1'; it must be a finite number above 0, or None"),
        ({"rule": SplitRule}, "rule is <class .*SplitRule'>; it must be a SplitRule, for instance"),
        ({"rule": None}, "rule is None"),
    ],
)
def test_settings_that_mean_nothing(options: dict[str, Any], message: str) -> None:
    with unchecked_types(), pytest.raises(SettingError, match=message):
        routed(make_pairs(), **options)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda base, pairs: (base, pairs, {"a.q": V}), r"basis is a dict; wrap its rows: Basis\(\{module: V"),
        (lambda base, pairs: (base, parameters(pairs), make_basis()), "vectors is a list; pass an adapted model, or a"),
        (lambda base, pairs: (base, {"a.q": pairs["a.q"].deployed}, make_basis()), "a.q: its vectors are a Parameter"),
        (lambda base, pairs: (base, {"a.q": (*pairs["a.q"], None)}, make_basis()), "a.q: its vectors are a tuple"),
        (lambda base, pairs: (base, {"a.q": (None, None)}, make_basis()), "a.q: its vectors are a tuple"),
        (lambda base, pairs: (parameters(pairs), pairs, make_basis()), "base is a list; pass a constructed optimizer"),
    ],
)
def test_arguments_of_a_wrong_type(wrong: Callable[[Optimizer, Pairs], Any], message: str) -> None:
    pairs = make_pairs()
    with unchecked_types(), pytest.raises(ArgumentTypeError, match=message):
        RoutedOptimizer(*wrong(_base(pairs), pairs))


def test_plain_pairs_are_vectors_too() -> None:
    plain, named = make_pairs(), make_pairs()
    optimizer = RoutedOptimizer(_base(plain), {name: tuple(pair) for name, pair in plain.items()}, make_basis())
    assert optimizer.vectors == plain
    take(optimizer, plain, range(2))
    take(RoutedOptimizer(_base(named), named, make_basis()), named, range(2))
    assert same_bits(values(plain), values(named))


def test_numbers_are_saved_as_plain_ones() -> None:
    """Torch.load(weights_only=True) reads no others."""
    with unchecked_types():
        optimizer = routed(make_pairs(), max_norm=np.float32(2), rule=SplitRule(overshoot=1))
    assert [type(x) for x in (optimizer.routing.max_norm, optimizer.routing.rule.overshoot)] == [float, float]


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


def test_a_model_whose_weights_changed_after_it_was_adapted() -> None:
    """Whether it is wrapped, given a new basis or resumed: the basis would be read in another decomposition."""
    adapter, peft = pytest.importorskip("projected_grpo.adapter"), pytest.importorskip("peft")
    model = peft.get_peft_model(nn.Sequential(nn.Linear(5, 7)), adapter.SVDRoutingConfig(target_modules=["0"]))
    basis = Basis({"0": torch.eye(1, 5)}, fingerprints=adapter.fingerprints(model))
    base = torch.optim.SGD([p for p in model.parameters() if p.requires_grad])
    optimizer = RoutedOptimizer(base, model, basis)
    state, other = optimizer.state_dict(), Basis({"0": torch.eye(2, 5)})
    with torch.no_grad():
        next(m for m in model.modules() if isinstance(m, adapter.Linear)).base_layer.weight[0, 0] += 1
    uses: list[Callable[[], Any]] = [
        lambda: RoutedOptimizer(base, model, other),
        lambda: optimizer.refresh(other),
        lambda: optimizer.load_state_dict(state),
        lambda: project_out(model, other),
    ]
    for use in uses:
        with pytest.raises(adapter.FingerprintMismatchError, match="weight of 0 has changed since"):
            use()
    assert optimizer.basis == basis


def test_a_state_of_another_models_decomposition_is_refused() -> None:
    """Its rows are coordinates in singular vectors that this model does not have."""
    adapter, peft = pytest.importorskip("projected_grpo.adapter"), pytest.importorskip("peft")

    def build(seed: int) -> RoutedOptimizer:
        torch.manual_seed(seed)
        model = peft.get_peft_model(nn.Sequential(nn.Linear(5, 7)), adapter.SVDRoutingConfig(target_modules=["0"]))
        base = torch.optim.SGD([p for p in model.parameters() if p.requires_grad])
        return RoutedOptimizer(base, model, Basis({"0": torch.eye(1, 5)}, fingerprints=adapter.fingerprints(model)))

    saved = build(0).state_dict()
    build(0).load_state_dict(saved)
    with pytest.raises(StateMismatchError, match="saved basis does not fit"):
        build(1).load_state_dict(saved)
