"""The SVD adapter: nothing at zero, one weight when merged, and views that always end."""

import copy

import pytest
import torch
from torch import nn

from reference.adapter import SVDLinear, adapt, decompose, viewed_as

U = torch.finfo(torch.float64).eps / 2  # unit roundoff
WIDTHS = (6, 4, 5)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def network():
    torch.manual_seed(0)
    first, second = nn.Linear(*WIDTHS[:2]), nn.Linear(*WIDTHS[1:], bias=False)
    return nn.Sequential(first, nn.Tanh(), second).double()


def trained():
    """An adapted network away from zero."""
    model = network()
    adapted = adapt(model)
    for seed, module in enumerate(adapted.values()):
        module.deployed.data, module.quarantine.data = randn(2, *module.deployed.shape, seed=seed)
    return model, adapted


X = randn(8, WIDTHS[0], seed=9)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)], ids=str)
def test_the_decomposition_is_reduced_and_restores_the_weight(shape):
    W = randn(*shape)
    left, S, right = decompose(W)
    assert left.shape == (shape[0], min(shape))
    assert right.shape == (min(shape), shape[1])
    assert (left * S @ right - W).norm() <= 32 * max(shape) * U * W.norm()


def test_the_decomposition_has_one_sign():
    """The largest entry of each left singular vector is positive, whatever sign the SVD came back with."""
    left, _, right = decompose(randn(6, 4))
    assert (left.gather(0, left.abs().argmax(dim=0, keepdim=True)) > 0).all()
    mirrored, _, same = decompose(-randn(6, 4))
    assert torch.allclose(mirrored, left, rtol=0, atol=1e-12)
    assert torch.allclose(same, -right, rtol=0, atol=1e-12)


def test_the_decomposition_carries_no_graph():
    """Not even that of a weight that requires a gradient, so that a second backward pass works."""
    linear = nn.Linear(4, 3).double()
    assert linear.weight.requires_grad
    assert not any(part.requires_grad for part in decompose(linear.weight))
    module = SVDLinear(linear)
    for _ in range(2):
        module(X[:, :4]).sum().backward()
    assert module.deployed.grad.any()
    assert not module.base.weight.requires_grad


def test_at_zero_the_output_is_the_bases_bit_for_bit():
    base = network()
    model = copy.deepcopy(base)
    assert len(adapt(model)) == 2
    assert torch.equal(model(X), base(X))


def test_both_vectors_get_the_same_gradient():
    model, adapted = trained()
    model(X).square().sum().backward()
    for module in adapted.values():
        assert module.deployed.grad.any()
        assert torch.equal(module.deployed.grad, module.quarantine.grad)


@pytest.mark.parametrize("view", ["trained", "deployed"])
def test_merging_agrees_with_the_adapted_forward(view):
    """Each of the two forwards rounds at most 2 (d_in + r) + 4 times per output, of terms bounded by the norms."""
    module = next(iter(trained()[1].values()))
    W = module.merged_weight(deployed_only=view == "deployed")
    assert not W.requires_grad
    size = X.norm() * (module.base.weight.norm() + module.deployed.norm() + module.quarantine.norm())
    with viewed_as(view, {"m": module}):
        adapted = module(X)
    assert (nn.functional.linear(X, W, module.base.bias) - adapted).norm() <= 2 * (2 * sum(WIDTHS) + 4) * U * size
    assert (adapted - module.base(X)).norm() > 0.1


def test_only_the_vectors_train_and_the_head_is_left_alone():
    model = network()
    model.lm_head = nn.Linear(WIDTHS[-1], 3).double()
    adapted = adapt(model)
    assert list(adapted) == ["0", "2"]
    assert type(model.lm_head) is nn.Linear
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == {f"{name}.{vector}" for name in adapted for vector in ("deployed", "quarantine")}


def test_modules_within_modules_are_adapted_where_they_are():
    model = nn.Sequential(network(), nn.ModuleDict({"inner": network()}))
    adapted = adapt(model)
    assert list(adapted) == ["0.0", "0.2", "1.inner.0", "1.inner.2"]
    assert all(model.get_submodule(name) is module for name, module in adapted.items())
    dtypes = {vector.dtype for module in adapted.values() for vector in (module.deployed, module.quarantine)}
    assert dtypes == {torch.float64}  # that of the weights


# Views


def test_a_model_is_adapted_as_it_is_trained():
    model, adapted = trained()
    assert {module.view for module in adapted.values()} == {"trained"}
    whole = model(X)
    with viewed_as("trained", adapted):
        assert torch.equal(model(X), whole)


def test_the_deployed_view_is_a_model_whose_quarantine_is_zero():
    model, adapted = trained()
    with viewed_as("deployed", adapted):
        ablated = model(X)
    assert not torch.equal(ablated, model(X))
    for module in adapted.values():
        module.quarantine.data.zero_()
    assert torch.equal(model(X), ablated)


def test_the_base_view_is_the_model_before_training():
    model, adapted = trained()
    assert not torch.equal(model(X), network()(X))
    with viewed_as("base", adapted):
        assert torch.equal(model(X), network()(X))


def test_views_nest():
    model, adapted = trained()
    outputs = {}
    for view in ("trained", "deployed", "base"):
        with viewed_as(view, adapted):
            outputs[view] = model(X)
    with viewed_as("deployed", adapted):
        with viewed_as("base", adapted):
            assert torch.equal(model(X), outputs["base"])
        assert torch.equal(model(X), outputs["deployed"])
    assert torch.equal(model(X), outputs["trained"])


def test_a_view_ends_when_its_body_raises():
    model, adapted = trained()
    before = model(X)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), viewed_as("deployed", adapted):
        model(X.T)
    assert torch.equal(model(X), before)
