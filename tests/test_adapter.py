"""The adapted layer's mathematics: identity, gradients, ablation, merging, basis, agreement with the specification."""

import copy
import io
from collections.abc import Callable

import jaxtyping
import pytest
import torch
from peft import inject_adapter_in_model
from torch import Tensor, nn

from projected_grpo.adapter import (
    AdapterConfigError,
    AdapterStateError,
    FingerprintMismatchError,
    Linear,
    SVDRoutingConfig,
    ablate_quarantine,
    decompose,
    fingerprint,
    fingerprints,
    routed_vectors,
)
from reference.adapter import SVDLinear

DTYPES = [torch.float64, torch.float32, torch.bfloat16]
SHAPES = [(5, 5), (7, 4), (3, 9)]  # (d_in, d_out)


def adapted(
    d_in: int = 7, d_out: int = 4, *, dtype: torch.dtype = torch.float64, bias: bool = True, quarantine: bool = True
) -> Linear:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(d_in, d_out, bias=bias, dtype=dtype))
    inject_adapter_in_model(SVDRoutingConfig(target_modules=["0"], quarantine=quarantine), model)
    layer = model[0]
    assert isinstance(layer, Linear)
    return layer


def trained(d_in: int = 7, d_out: int = 4, **options: object) -> Linear:
    layer = adapted(d_in, d_out, **options)  # type: ignore[arg-type]
    for vector in (layer.deployed, layer.quarantine):
        if vector is not None:
            nn.init.normal_(vector)
    return layer


def inputs(layer: Linear, *batch: int) -> Tensor:
    return torch.randn(*batch, layer.in_features, dtype=layer.base_layer.weight.dtype)


def rounding_bound(layer: Linear, x: Tensor, *, deployed_only: bool) -> Tensor:
    """How far two orders of evaluating (W + U diag(delta) Vh) x + b can lie apart, elementwise.

    Every product or sum rounds once, so a chain of n operations is off by at most n u / (1 - n u) times the sum of
    magnitudes (Higham, Accuracy and Stability of Numerical Algorithms, lemma 3.1). The longest chains: d_in for Vh x or
    W' x, r for U z or for an entry of U diag(delta) Vh, and a handful of sums and casts; both sides are off.
    """
    u = torch.finfo(x.dtype).eps / 2
    n = 2 * (layer.in_features + layer.Vh.shape[0] + 8)
    vector, quarantine = layer.deployed, layer.quarantine
    assert vector is not None
    delta = vector.abs() if deployed_only or quarantine is None else vector.abs() + quarantine.abs()
    magnitude = layer.base_layer.weight.abs() + (layer.U.abs() * delta) @ layer.Vh.abs()
    total = x.abs() @ magnitude.T + (0 if layer.base_layer.bias is None else layer.base_layer.bias.abs())
    return (n * u / (1 - n * u)) * total.detach()


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


# --- merging


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("safe_merge", [True, False])
def test_merged_output_is_within_rounding_of_the_additive_one(
    dtype: torch.dtype, shape: tuple[int, int], safe_merge: bool
) -> None:
    layer = trained(*shape, dtype=dtype)
    x = inputs(layer, 16)
    bound = rounding_bound(layer, x, deployed_only=False)
    additive = layer(x)
    layer.merge(safe_merge=safe_merge)
    assert layer.merged
    assert ((layer(x) - additive).abs() <= bound).all()


def test_merged_bfloat16_weight_is_rounded_once() -> None:
    layer = trained(dtype=torch.bfloat16)
    delta = (layer.deployed + layer.quarantine).double()
    exact = layer.base_layer.weight.double() + (layer.U.double() * delta) @ layer.Vh.double()
    magnitude = (
        layer.base_layer.weight.double().abs() + (layer.U.double().abs() * delta.abs()) @ layer.Vh.double().abs()
    )
    # Half a unit of bfloat16 for the one rounding, and r + 4 operations in float32 before it.
    single, half = torch.finfo(torch.float32).eps / 2, torch.finfo(torch.bfloat16).eps / 2
    error = (layer.merged_weight(deployed_only=False).double() - exact).abs()
    assert (error <= half * exact.abs() + (1 + half) * (layer.Vh.shape[0] + 4) * single * 1.001 * magnitude).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_unmerging_restores_the_weight_bit_for_bit_after_fifty_cycles(dtype: torch.dtype) -> None:
    layer = trained(dtype=dtype)
    pristine = layer.base_layer.weight.detach().clone()
    for cycle in range(50):
        layer.merge(safe_merge=cycle % 2 == 0)
        assert not torch.equal(layer.base_layer.weight, pristine)
        layer.unmerge()
    assert torch.equal(layer.base_layer.weight, pristine)
    assert not layer.merged


def test_merging_twice_or_unmerging_twice_changes_nothing_more() -> None:
    layer = trained()
    pristine = layer.base_layer.weight.detach().clone()
    layer.merge()
    merged = layer.base_layer.weight.detach().clone()
    layer.merge()
    assert torch.equal(layer.base_layer.weight, merged)
    layer.unmerge()
    layer.unmerge()
    assert torch.equal(layer.base_layer.weight, pristine)


def test_safe_merge_refuses_values_that_are_not_finite_and_leaves_the_weight() -> None:
    layer = trained()
    pristine = layer.base_layer.weight.detach().clone()
    with torch.no_grad():
        layer.quarantine[0] = float("nan")
    with pytest.raises(AdapterStateError, match="merged weight of 0 has values that are not finite"):
        layer.merge(safe_merge=True)
    assert not layer.merged
    assert torch.equal(layer.base_layer.weight, pristine)


def test_an_unsafe_merge_takes_any_value_and_still_restores_the_weight() -> None:
    layer = trained()
    pristine = layer.base_layer.weight.detach().clone()
    with torch.no_grad():
        layer.quarantine[0] = float("inf")
    layer.merge()
    assert layer.merged
    layer.unmerge()
    assert torch.equal(layer.base_layer.weight, pristine)


def test_disabling_a_merged_layer_is_the_base_model_exactly() -> None:
    layer = trained()
    x = inputs(layer, 3)
    base = layer.base_layer(x)
    layer.merge()
    layer.enable_adapters(False)
    assert torch.equal(layer(x), base)


# --- the basis and its fingerprint


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_decomposition_is_reduced_contiguous_sign_normalised_and_gives_the_weight_back(
    dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    weight = torch.randn(*shape, dtype=dtype)
    U, S, Vh = decompose(weight)
    r = min(shape)
    assert (U.shape, S.shape, Vh.shape) == ((shape[0], r), (r,), (r, shape[1]))
    assert all(factor.is_contiguous() and factor.dtype == dtype for factor in (U, S, Vh))
    assert (U.gather(0, U.abs().argmax(0, keepdim=True)) > 0).all()
    # Each factor is rounded to the weight's dtype once, and the product sums r terms in float64.
    u = torch.finfo(dtype).eps / 2
    magnitude = (U.double().abs() * S.double()) @ Vh.double().abs()
    assert ((U.double() * S.double()) @ Vh.double() - weight.double()).abs().max() <= 8 * r * u * magnitude.max()


def test_decomposition_in_float32_when_asked() -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 4, dtype=torch.float64)
    coarse, fine = decompose(weight, "float32"), decompose(weight, "float64")
    assert torch.equal(coarse.U, coarse.U.float().double())
    assert not torch.equal(fine.U, fine.U.float().double())
    with pytest.raises(AdapterConfigError, match="svd_dtype is 'half': choose one of 'float32', 'float64'"):
        decompose(weight, "half")


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float16])
def test_fingerprint_sees_every_bit_of_a_weight(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight = torch.randn(4, 6).to(dtype)
    assert fingerprint(weight) == fingerprint(weight.clone()) == fingerprint(weight.T.contiguous().T)
    assert len(fingerprint(weight)) == 64
    nudged = weight.clone()
    nudged[3, 5] = torch.nextafter(nudged[3, 5], torch.tensor(10.0, dtype=dtype))
    assert fingerprint(nudged) != fingerprint(weight)


def test_fingerprint_sees_dtype_shape_and_svd_dtype() -> None:
    weight = torch.arange(12.0).reshape(3, 4)
    others: list[Callable[[], str]] = [
        lambda: fingerprint(weight.double()),
        lambda: fingerprint(weight.bfloat16()),
        lambda: fingerprint(weight.view(torch.float16)),
        lambda: fingerprint(weight.view(torch.bfloat16)),  # the same bytes and shape
        lambda: fingerprint(weight.reshape(4, 3)),
        lambda: fingerprint(weight.reshape(2, 6)),
        lambda: fingerprint(weight, "float32"),
    ]
    assert len({fingerprint(weight), *(other() for other in others)}) == len(others) + 1


# --- names, copies, files


def test_vectors_and_fingerprints_go_by_the_base_models_names() -> None:
    layer = adapted()
    assert routed_vectors(layer)["0"].deployed is layer.deployed
    assert routed_vectors(layer)["0"].quarantine is layer.quarantine
    assert fingerprints(layer) == {"0": fingerprint(layer.base_layer.weight)}
    assert routed_vectors(adapted(quarantine=False))["0"].quarantine is None


def _write(layer: Linear) -> None:
    with torch.no_grad():
        layer.base_layer.weight.copy_(torch.randn_like(layer.base_layer.weight))


def _load_another_base(layer: Linear) -> None:
    layer.base_layer.load_state_dict(nn.Linear(layer.in_features, layer.out_features).double().state_dict())


def _cast(layer: Linear) -> None:
    layer.float()


@pytest.mark.parametrize("change", [_write, _load_another_base, _cast])
def test_fingerprints_are_of_the_weight_as_it_is_now(change: Callable[[Linear], None]) -> None:
    """U and Vh belong to the weight that was there when they were computed; merging is no change."""
    layer = trained()
    recorded = fingerprints(layer)
    layer.merge()
    assert fingerprints(layer) == recorded
    layer.unmerge()
    assert fingerprints(copy.deepcopy(layer)) == recorded
    change(layer)
    with pytest.raises(FingerprintMismatchError, match="weight of 0 has changed since its singular basis was computed"):
        fingerprints(layer)


def test_a_model_without_an_adapter_has_no_vectors_to_give() -> None:
    for ask in (routed_vectors, fingerprints):
        with pytest.raises(AdapterStateError, match=r"Linear holds no SVD routing adapter.*get_peft_model"):
            ask(nn.Linear(2, 2))


def test_two_adapted_models_in_one_are_told_apart_or_refused() -> None:
    with pytest.raises(AdapterStateError, match="name 0 occurs twice"):
        routed_vectors(nn.ModuleList([adapted(), adapted()]))


def test_only_the_vectors_are_in_the_state_besides_the_base_layer() -> None:
    assert set(adapted().state_dict()) == {
        "base_layer.weight",
        "base_layer.bias",
        "svd_routing_deployed.default.weight",
        "svd_routing_quarantine.default.weight",
    }


@pytest.mark.parametrize("merged", [True, False])
def test_deepcopy_and_torch_save_keep_the_layer_and_its_pristine_weight(merged: bool) -> None:
    layer = trained(dtype=torch.bfloat16)
    x, pristine = inputs(layer, 3), layer.base_layer.weight.detach().clone()
    if merged:
        layer.merge()
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for twin in (copy.deepcopy(layer), torch.load(file, weights_only=False)):
        assert torch.equal(twin(x), layer(x))
        twin.unmerge()
        assert torch.equal(twin.base_layer.weight, pristine)
        assert twin.U.data_ptr() != layer.U.data_ptr()
