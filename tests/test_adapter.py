"""The adapted layer as it trains: identity, gradients, ablation, agreement with the specification."""

import copy

import jaxtyping
import pytest
import torch
from adapter_toys import DTYPES, SHAPES, adapted, inputs, trained
from peft import inject_adapter_in_model
from torch import Tensor, nn

from projected_grpo.adapter import (
    AdapterStateError,
    SVDRoutingConfig,
    ablate_quarantine,
)
from reference.adapter import SVDLinear

# --- the forward pass


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_zero_vectors_are_the_base_model_bit_for_bit(dtype: torch.dtype, shape: tuple[int, int], bias: bool) -> None:
    layer = adapted(*shape, dtype=dtype, bias=bias)
    x = inputs(layer, 6)
    assert torch.equal(layer(x), layer.base_layer(x))


@pytest.mark.parametrize("batch", [(), (1,), (0,), (2, 3), (2, 1, 3)])
def test_any_leading_shape(batch: tuple[int, ...]) -> None:
    layer = trained()
    x = inputs(layer, *batch)
    flat = torch.stack([layer(row) for row in x.reshape(-1, 7)]) if x.numel() else torch.empty(0, 4).double()
    torch.testing.assert_close(layer(x).reshape(-1, 4), flat, rtol=0, atol=1e-12)
    assert layer(x).shape == (*batch, 4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_output_and_buffers_keep_the_weights_dtype_and_vectors_do_not_go_below_float32(dtype: torch.dtype) -> None:
    layer = trained(dtype=dtype)
    assert layer(inputs(layer, 2)).dtype == layer.U.dtype == layer.Vh.dtype == dtype
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    assert {vector.dtype for vector in layer.parameters() if vector.requires_grad} == {wanted}


def test_zero_vectors_are_the_base_model_under_autocast() -> None:
    layer = adapted(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = inputs(layer, 6)
        assert torch.equal(layer(x), layer.base_layer(x))
        assert layer(x).dtype == torch.bfloat16


def test_a_weight_is_merged_in_its_own_dtype_under_autocast() -> None:
    """It stays in the model, and in what is exported, when the block is left."""
    layer = trained(dtype=torch.float32)
    expected = layer.merged_weight(deployed_only=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        merged = layer.merged_weight(deployed_only=True)
    assert torch.equal(merged, expected)
    assert not torch.equal(merged, merged.bfloat16().float()), "it would be another in bfloat16"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_agrees_with_the_specification(shape: tuple[int, int], bias: bool) -> None:
    layer = trained(*shape, bias=bias)
    specified = SVDLinear(copy.deepcopy(layer.base_layer))
    specified.deployed.data.copy_(layer.deployed)
    specified.quarantine.data.copy_(layer.quarantine)
    x = inputs(layer, 6)

    def agree(ours: Tensor, theirs: Tensor) -> None:
        assert (ours - theirs).norm() <= 1e-12 * theirs.norm()

    agree(layer(x), specified(x))
    layer(x).square().sum().backward()
    specified(x).square().sum().backward()
    agree(layer.deployed.grad, specified.deployed.grad)
    agree(layer.quarantine.grad, specified.quarantine.grad)
    for deployed_only in (True, False):
        agree(layer.merged_weight(deployed_only=deployed_only), specified.merged_weight(deployed_only=deployed_only))
    specified.view = "deployed"
    with ablate_quarantine(layer):
        agree(layer(x), specified(x))


# --- gradients


@pytest.mark.parametrize("dtype", DTYPES)
def test_both_vectors_get_the_same_gradient_in_their_own_memory(dtype: torch.dtype) -> None:
    layer = trained(dtype=dtype)
    layer(inputs(layer, 3, 2)).square().sum().backward()
    deployed, quarantine = layer.deployed.grad, layer.quarantine.grad
    assert torch.equal(deployed, quarantine)
    assert deployed.abs().max() > 0
    assert deployed.data_ptr() != quarantine.data_ptr()


def test_gradient_is_the_projection_on_the_singular_directions() -> None:
    layer = trained()
    x = inputs(layer, 6).requires_grad_()
    y = layer(x)
    (g,) = torch.autograd.grad(y.square().sum(), y, retain_graph=True)
    y.square().sum().backward()
    torch.testing.assert_close(layer.deployed.grad, ((x @ layer.Vh.T) * (g @ layer.U)).sum(0), rtol=1e-12, atol=0)
    expected = g @ layer.merged_weight(deployed_only=False)
    torch.testing.assert_close(x.grad, expected, rtol=0, atol=1e-12 * float(expected.norm()))


def test_per_sample_gradients_by_functional_call_sum_to_the_gradient() -> None:
    layer = trained()
    x = inputs(layer, 5)
    vectors = {name: vector.detach() for name, vector in layer.named_parameters() if vector.requires_grad}

    def loss(vectors: dict[str, Tensor], row: Tensor) -> Tensor:
        return torch.func.functional_call(layer, vectors, (row,)).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(vectors, x)
    layer(x).square().sum().backward()
    for name, gradients in each.items():
        expected = layer.get_parameter(name).grad
        assert (gradients.sum(0) - expected).norm() <= 1e-12 * expected.norm()


def test_the_basis_is_outside_the_graph_so_that_two_backward_passes_work() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 3))  # its weight still requires a gradient while it is decomposed
    with torch.enable_grad():
        inject_adapter_in_model(SVDRoutingConfig(target_modules=["0"]), model)
    for factor in (model[0].U, model[0].Vh):
        assert not factor.requires_grad
        assert factor.grad_fn is None
    for _ in range(2):
        model(torch.randn(4, 5)).sum().backward()
    assert model[0].base_layer.weight.grad is None


# --- ablation


@pytest.mark.parametrize("dtype", DTYPES)
def test_ablation_equals_a_forward_pass_with_the_deployed_vector_alone(dtype: torch.dtype) -> None:
    layer = trained(dtype=dtype)
    x = inputs(layer, 6)
    before = layer(x)
    with ablate_quarantine(layer):
        ablated = layer(x)
    assert torch.equal(layer(x), before)
    assert not torch.equal(ablated, before)
    nn.init.zeros_(layer.quarantine)
    assert torch.equal(ablated, layer(x))


def test_ablation_never_touches_a_value() -> None:
    layer = trained()
    state = {name: (tensor.clone(), tensor._version) for name, tensor in layer.state_dict().items()}
    with ablate_quarantine(layer):
        layer(inputs(layer, 2)).sum().backward()
        assert layer.quarantine.grad is None
    for name, tensor in layer.state_dict().items():
        assert torch.equal(tensor, state[name][0])
        assert tensor._version == state[name][1]


def test_a_compiled_layer_follows_the_ablation(monkeypatch: pytest.MonkeyPatch) -> None:
    # The checks of shapes in signatures that these tests install are not compilable.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    layer = trained()
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    x = inputs(layer, 2)
    assert torch.equal(compiled(x), layer(x))
    with ablate_quarantine(layer):
        assert torch.equal(compiled(x), layer(x))
    assert torch.equal(compiled(x), layer(x))


def test_ablation_nests() -> None:
    layer = trained()
    x = inputs(layer, 2)
    whole = layer(x)
    with ablate_quarantine(layer):
        ablated = layer(x)
        with ablate_quarantine(layer):
            assert torch.equal(layer(x), ablated)
        assert torch.equal(layer(x), ablated)
    assert torch.equal(layer(x), whole)


def test_ablation_restores_when_an_exception_leaves_the_block() -> None:
    layer = trained()
    x = inputs(layer, 2)
    whole = layer(x)
    with pytest.raises(KeyboardInterrupt), ablate_quarantine(layer):
        raise KeyboardInterrupt
    assert torch.equal(layer(x), whole)


def test_ablation_changes_nothing_at_a_zero_or_absent_quarantine() -> None:
    for layer in (trained(quarantine=False), trained()):
        if layer.quarantine is not None:
            nn.init.zeros_(layer.quarantine)
        x = inputs(layer, 2)
        whole = layer(x)
        with ablate_quarantine(layer):
            assert torch.equal(layer(x), whole)
    with ablate_quarantine(nn.Linear(2, 2)):
        pass


def test_ablation_is_refused_while_merged_and_leaves_no_layer_ablated() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    inject_adapter_in_model(SVDRoutingConfig(target_modules=["0", "1"]), model)
    model[1].merge()
    with (
        pytest.raises(AdapterStateError, match=r"quarantine of 1 is merged.*unmerge_adapter"),
        ablate_quarantine(model),
    ):
        pass
    assert not model[0].ablated
    assert not model[1].ablated


def test_merging_is_refused_inside_an_ablation() -> None:
    layer = trained()
    with ablate_quarantine(layer), pytest.raises(AdapterStateError, match=r"0 cannot be merged.*export_deployed"):
        layer.merge()
    assert not layer.merged


def test_a_merged_layer_without_a_quarantine_may_be_ablated() -> None:
    layer = trained(quarantine=False)
    layer.merge()
    x = inputs(layer, 2)
    whole = layer(x)
    with ablate_quarantine(layer):
        assert torch.equal(layer(x), whole)
