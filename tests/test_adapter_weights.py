"""The adapted layer's weight: merging, its decomposition and fingerprint, names, copies and files."""

import copy
import io
from collections.abc import Callable

import pytest
import torch
from adapter_toys import DTYPES, SHAPES, adapted, inputs, rounding_bound, trained
from torch import nn

from projected_grpo.adapter import (
    AdapterConfigError,
    AdapterStateError,
    FingerprintMismatchError,
    Linear,
    decompose,
    fingerprint,
    fingerprints,
    routed_vectors,
)

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
