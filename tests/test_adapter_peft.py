"""The adapter's life as a PEFT tuner, on a tiny Qwen3: inject, train, save, load."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftConfig, PeftModel, get_peft_model, inject_adapter_in_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft_toys import TOKENS, base, gradients, logits, randomise, wrapped
from safetensors.torch import load_file
from torch import nn

from projected_grpo.adapter import (
    AdapterStateError,
    SVDRoutingConfig,
    SVDRoutingModel,
    ablate_quarantine,
    export_deployed,
    fingerprints,
    register,
    routed_vectors,
)
from reference.loop import tiny_model

# PEFT asks transformers for the deprecated name when it wraps a model; the other one is the name that users know.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning"),
]


# --- injection


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_fresh_adapter_is_the_base_model_bit_for_bit(dtype: torch.dtype) -> None:
    model = base(dtype)
    before = logits(model)
    model = get_peft_model(model, SVDRoutingConfig())
    assert torch.equal(logits(model), before)
    assert len(routed_vectors(model)) == 14


def test_only_the_vectors_train_and_their_names_carry_the_adapters() -> None:
    model = wrapped()
    training = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert training == {
        f"base_model.model.{module}.svd_routing_{kind}.default.weight"
        for module in routed_vectors(model)
        for kind in ("deployed", "quarantine")
    }


def test_names_and_fingerprints_do_not_depend_on_the_wrapper() -> None:
    model = wrapped()
    plain = base()
    injected = inject_adapter_in_model(SVDRoutingConfig(), plain)
    outer = nn.ModuleDict({"module": model})
    assert list(routed_vectors(model)) == list(routed_vectors(injected)) == list(routed_vectors(outer))
    assert list(routed_vectors(model)) == list(routed_vectors(model.base_model))
    assert set(routed_vectors(model)) <= {name for name, _ in base().named_modules()}
    assert fingerprints(model) == fingerprints(injected) == model.peft_config["default"].fingerprints


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"target_modules": "all-linear"}, 14),
        ({"target_modules": None}, 14),
        ({"target_modules": ["q_proj", "v_proj"]}, 4),
        ({"target_modules": r".*layers\.1\.mlp\..*_proj"}, 3),
        ({"target_modules": ["model.layers.0.mlp.up_proj"]}, 1),
        ({"target_modules": "all-linear", "exclude_modules": ["down_proj"]}, 12),
        ({"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"}, 1),
    ],
)
def test_target_modules_follow_pefts_conventions(options: dict[str, Any], count: int) -> None:
    assert len(routed_vectors(wrapped(**options))) == count


def test_one_configuration_serves_several_models() -> None:
    config = SVDRoutingConfig()
    first, second = (get_peft_model(tiny_model(seed), config) for seed in (0, 1))
    assert fingerprints(first).keys() == fingerprints(second).keys()
    assert fingerprints(first) != fingerprints(second)
    assert config.fingerprints == {}


def test_a_chosen_adapter_name_appears_instead_of_default() -> None:
    model = get_peft_model(base(), SVDRoutingConfig(), adapter_name="mine")
    assert all(".mine.weight" in name for name, parameter in model.named_parameters() if parameter.requires_grad)
    randomise(model)
    assert not torch.equal(logits(model), logits(base()))


def test_a_task_type_gives_pefts_model_for_the_task() -> None:
    model = randomise(wrapped(task_type="CAUSAL_LM"))
    options = {"max_new_tokens": 3, "do_sample": False, "attention_mask": torch.ones_like(TOKENS)}
    with ablate_quarantine(model):
        generated = model.generate(input_ids=TOKENS, **options)
    assert torch.equal(generated, export_deployed(model).generate(TOKENS, **options))


def test_registration_is_idempotent_and_reads_like_pefts_own() -> None:
    tables = (PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING)
    before = [dict(table) for table in tables]
    register()
    assert [dict(table) for table in tables] == before
    name = SVDRoutingConfig().peft_type
    assert (name.value, str(name), f"{name}") == ("SVD_ROUTING", "PeftType.SVD_ROUTING", "PeftType.SVD_ROUTING")
    assert PEFT_TYPE_TO_PREFIX_MAPPING["SVD_ROUTING"] == name.value.lower() + "_"
    assert PEFT_TYPE_TO_TUNER_MAPPING["SVD_ROUTING"] is SVDRoutingModel


# --- training


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_vectors_of_every_module_get_equal_gradients(dtype: torch.dtype) -> None:
    found = gradients(randomise(wrapped(dtype)))
    assert all(torch.equal(deployed, quarantine) for deployed, quarantine in zip(found[::2], found[1::2], strict=True))
    assert all(gradient.isfinite().all() and gradient.abs().max() > 0 for gradient in found)


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("before_wrapping", [True, False])
def test_gradient_checkpointing_changes_no_gradient(use_reentrant: bool, before_wrapping: bool) -> None:
    expected = gradients(randomise(wrapped()).train())
    options = {"gradient_checkpointing_kwargs": {"use_reentrant": use_reentrant}}
    model = base()
    if before_wrapping:
        model.gradient_checkpointing_enable(**options)
    model = randomise(get_peft_model(model, SVDRoutingConfig())).train()
    if not before_wrapping:
        model.gradient_checkpointing_enable(**options)
        model.enable_input_require_grads()
    for ours, theirs in zip(gradients(model), expected, strict=True):
        assert torch.equal(ours, theirs)


def test_a_training_step_moves_both_vectors_and_nothing_else() -> None:
    model = wrapped()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    gradients(model)
    optimizer.step()
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {name for name in before if "svd_routing_" in name}


def test_disabling_the_adapter_is_the_base_model_and_both_vectors_train_again_after_it() -> None:
    model = randomise(wrapped())
    whole = logits(model)
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(base()))
    assert torch.equal(logits(model), whole)
    assert all(vector.requires_grad for pair in routed_vectors(model).values() for vector in pair)


def test_ablation_of_a_whole_model_restores_it() -> None:
    model = randomise(wrapped())
    whole = logits(model)
    with ablate_quarantine(model):
        with pytest.raises(RuntimeError, match="stop"), ablate_quarantine(model):
            raise RuntimeError("stop")
        ablated = logits(model)
    assert torch.equal(logits(model), whole)
    assert not torch.equal(ablated, whole)


# --- saving and loading


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("low_cpu_mem_usage", [True, False])
def test_save_and_load_give_the_same_bits(tmp_path: Path, dtype: torch.dtype, low_cpu_mem_usage: bool) -> None:
    model = randomise(wrapped(dtype))
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(base(dtype), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage)
    assert torch.equal(logits(loaded), logits(model))
    for ours, theirs in zip(routed_vectors(loaded).values(), routed_vectors(model).values(), strict=True):
        assert torch.equal(ours.deployed, theirs.deployed)
        assert torch.equal(ours.quarantine, theirs.quarantine)
        assert not ours.deployed.requires_grad
    assert fingerprints(loaded) == fingerprints(model)


def test_loading_to_train_on(tmp_path: Path) -> None:
    randomise(wrapped()).save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(base(), tmp_path, is_trainable=True)
    assert all(gradient.abs().max() > 0 for gradient in gradients(loaded))


def test_the_checkpoint_holds_the_vectors_and_the_fingerprints_and_nothing_large(tmp_path: Path) -> None:
    model = wrapped()
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert set(tensors) == {
        f"base_model.model.{module}.svd_routing_{kind}.weight"
        for module in routed_vectors(model)
        for kind in ("deployed", "quarantine")
    }
    config = PeftConfig.from_pretrained(tmp_path)
    assert isinstance(config, SVDRoutingConfig)
    assert config.fingerprints == fingerprints(model)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert written["peft_type"] == "SVD_ROUTING"
    assert written["target_modules"] == sorted(written["target_modules"])


def test_transformers_own_adapter_support(tmp_path: Path) -> None:
    model = randomise(wrapped())
    model.save_pretrained(tmp_path)
    plain = base()
    plain.load_adapter(str(tmp_path))
    assert torch.equal(logits(plain), logits(model))
    assert list(routed_vectors(plain)) == list(routed_vectors(model))
    plain.disable_adapters()
    assert torch.equal(logits(plain), logits(base()))
    plain.enable_adapters()
    plain.save_pretrained(tmp_path / "again")
    assert torch.equal(logits(PeftModel.from_pretrained(base(), tmp_path / "again")), logits(model))


def test_loading_back_into_the_same_model_after_deleting_the_adapter(tmp_path: Path) -> None:
    model = randomise(wrapped())
    whole = logits(model)
    model.save_pretrained(tmp_path)
    model.delete_adapter("default")
    assert torch.equal(logits(model.base_model.model), logits(base()))
    layer = model.base_model.model.model.layers[0].mlp.up_proj
    with pytest.raises(AdapterStateError, match=r"adapter of model\.layers\.0\.mlp\.up_proj was deleted"):
        layer.merged_weight(deployed_only=True)
    with pytest.raises(AdapterStateError, match="PeftModel holds no SVD routing adapter"):
        export_deployed(model)
    model.load_adapter(tmp_path, "default")
    model.set_adapter("default")
    assert torch.equal(logits(model), whole)


def test_an_adapter_may_be_deleted_and_added_again() -> None:
    config = SVDRoutingConfig(target_modules=r".*up_proj.*")  # would match the insides of an adapted layer as well
    model = get_peft_model(base(), config)
    names = list(routed_vectors(model))
    model.delete_adapter("default")
    model.add_adapter("again", config)
    assert list(routed_vectors(model)) == names
    assert [name.split(".")[-2] for name, p in model.named_parameters() if "svd_routing" in name] == ["again"] * 4


def test_deepcopy_and_torch_save_of_a_whole_model(tmp_path: Path) -> None:
    model = randomise(wrapped())
    torch.save(model, tmp_path / "model.pt")
    for twin in (copy.deepcopy(model), torch.load(tmp_path / "model.pt", weights_only=False)):
        assert torch.equal(logits(twin), logits(model))
        randomise(twin)
        twin.save_pretrained(tmp_path / "twin")
        assert twin.peft_config["default"].peft_type.value == "SVD_ROUTING"
