"""The adapter's life as a PEFT tuner, on a tiny Qwen3: inject, train, save, load, refuse, merge, export."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftConfig, PeftModel, get_peft_model, inject_adapter_in_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from projected_grpo.adapter import (
    AdapterConfigError,
    AdapterStateError,
    FingerprintMismatchError,
    Linear,
    NoMatchingModulesError,
    OutputExistsError,
    SVDRoutingConfig,
    SVDRoutingModel,
    UnsupportedModuleError,
    ablate_quarantine,
    export,
    export_deployed,
    fingerprints,
    register,
    routed_vectors,
    save_deployed,
)
from reference.loop import tiny_model

# PEFT asks transformers for the deprecated name when it wraps a model; the other one is the name that users know.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning"),
]

TOKENS = torch.arange(10).reshape(2, 5)


def base(dtype: torch.dtype = torch.float32) -> transformers.Qwen3ForCausalLM:
    return tiny_model(0).to(dtype)


def wrapped(dtype: torch.dtype = torch.float32, **options: Any) -> PeftModel:
    return get_peft_model(base(dtype), SVDRoutingConfig(**options))


def randomise(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for pair in routed_vectors(model).values():
            for vector in pair:
                if vector is not None:
                    vector.copy_(0.2 * torch.randn(vector.shape, generator=generator, dtype=torch.float64))
    return model


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(TOKENS).logits


def files(path: Path) -> set[str]:
    return {file.name for file in path.iterdir()}


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


def gradients(model: nn.Module) -> list[Tensor]:
    model.zero_grad()
    model(TOKENS, labels=TOKENS).loss.backward()
    return [vector.grad.clone() for pair in routed_vectors(model).values() for vector in pair]


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


# --- refusals


def refused(
    error: type[Exception], match: str, model: nn.Module, config: SVDRoutingConfig, wrap: Callable[..., nn.Module]
) -> None:
    """The sentence appears, and the model is as it was."""
    before = {name: type(module) for name, module in model.named_modules()}
    with pytest.raises(error, match=match):
        wrap(model, config)
    assert {name: type(module) for name, module in model.named_modules()} == before


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda model: model.model.layers[1].mlp.up_proj.weight.data.view(-1)[3:4].mul_(1.001), r"layers\.1\.mlp\.up"),
        (lambda model: model.bfloat16(), r"weight of model\.layers\.0\.mlp\.down_proj is not the one.*same dtype"),
    ],
)
def test_an_adapter_is_refused_by_another_base_model(tmp_path: Path, change: Callable[..., object], match: str) -> None:
    wrapped().save_pretrained(tmp_path)
    other = base()
    change(other)
    with pytest.raises(FingerprintMismatchError, match=match):
        PeftModel.from_pretrained(other, tmp_path)
    assert not any(isinstance(module, Linear) for module in other.modules())


def test_a_state_dict_cannot_adapt_more_than_the_configuration_says() -> None:
    state = {
        f"model.layers.0.self_attn.{name}.svd_routing_deployed.weight": torch.zeros(1) for name in ("q_proj", "o_proj")
    }
    config = SVDRoutingConfig(target_modules=["q_proj"])
    with pytest.raises(
        UnsupportedModuleError, match=r"layers\.0\.self_attn\.o_proj is in the state dict but target_modules"
    ):
        inject_adapter_in_model(config, base(), state_dict=state)


@pytest.mark.parametrize(("field", "value"), [("target_modules", ["q_proj"]), ("svd_dtype", "float32")])
def test_an_adapter_is_refused_with_another_configuration(tmp_path: Path, field: str, value: object) -> None:
    wrapped(target_modules=["q_proj", "k_proj"]).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, field: value}))
    with pytest.raises(FingerprintMismatchError, match="k_proj"):
        PeftModel.from_pretrained(base(), tmp_path)


def test_an_adapter_is_refused_when_the_recorded_modules_are_fewer(tmp_path: Path) -> None:
    config = SVDRoutingConfig(target_modules=["q_proj"], fingerprints={"elsewhere": "0" * 64})
    with pytest.raises(FingerprintMismatchError, match="module elsewhere which is not adapted"):
        get_peft_model(base(), config)
    known = fingerprints(wrapped(target_modules=["model.layers.0.self_attn.q_proj"]))
    with pytest.raises(
        FingerprintMismatchError, match=r"no vectors for the module model\.layers\.1\.self_attn\.q_proj"
    ):
        get_peft_model(base(), SVDRoutingConfig(target_modules=["q_proj"], fingerprints=known))


@pytest.mark.parametrize("wrap", [get_peft_model, lambda model, config: inject_adapter_in_model(config, model)])
def test_target_modules_that_match_nothing_are_refused_with_names_that_exist(wrap: Callable[..., nn.Module]) -> None:
    match = r"target_modules=\['query'\] matches no module of Qwen3ForCausalLM: .*for instance .*down_proj, .*q_proj"
    refused(NoMatchingModulesError, match, base(), SVDRoutingConfig(target_modules=["query"]), wrap)
    refused(NoMatchingModulesError, "no Linear at all", nn.Sequential(nn.ReLU()), SVDRoutingConfig(), wrap)


class Scaled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def shared() -> nn.Module:
    inner = nn.Linear(3, 3)
    return nn.Sequential(nn.Linear(3, 3), inner, inner)


def half_precision_integers() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3))
    model[0].weight = nn.Parameter(torch.zeros(3, 3, dtype=torch.int8), requires_grad=False)
    return model


def not_finite() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3))
    nn.init.constant_(model[0].weight, float("inf"))
    return model


@pytest.mark.parametrize(
    ("model", "targets", "match"),
    [
        (base, ["q_proj", "embed_tokens"], r"embed_tokens cannot be adapted, it is a .*Embedding and not a plain"),
        (base, ["lm_head"], r"lm_head cannot be adapted, its weight is tied to model\.embed_tokens\.weight"),
        (shared, ["0", "1"], r"1 cannot be adapted, its weight is tied to 2\.weight"),
        (lambda: nn.Sequential(nn.Linear(3, 3), Conv1D(3, 3)), "all-linear", r"1 cannot be adapted, it is a .*Conv1D"),
        (lambda: nn.Sequential(Scaled(3, 3)), ["0"], r"0 cannot be adapted, it is a .*Scaled"),
        (lambda: nn.Sequential(nn.MultiheadAttention(4, 2)), ["0.out_proj"], r"without calling it"),
        (half_precision_integers, ["0"], r"quantised or distributed \(Tensor, torch.int8\)"),
        (not_finite, ["0"], r"not finite"),
        (lambda: nn.Sequential(nn.Linear(3, 3, device="meta")), ["0"], r"meta device"),
    ],
)
def test_modules_that_cannot_be_adapted_are_refused_before_anything_changes(
    model: Callable[[], nn.Module], targets: Any, match: str
) -> None:
    refused(UnsupportedModuleError, match, model(), SVDRoutingConfig(target_modules=targets), get_peft_model)


def test_an_untied_head_may_be_adapted_by_name() -> None:
    config = copy.deepcopy(base().config)
    config.tie_word_embeddings = False
    model = transformers.Qwen3ForCausalLM(config)
    assert list(routed_vectors(get_peft_model(model, SVDRoutingConfig(target_modules=["lm_head"])))) == ["lm_head"]


@pytest.mark.filterwarnings("ignore:You are trying to modify a model with PEFT for a second time")
def test_a_second_adapter_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    model = randomise(wrapped())
    whole = logits(model)
    model.save_pretrained(tmp_path)
    attempts: list[Callable[[], object]] = [
        lambda: model.add_adapter("second", SVDRoutingConfig()),
        lambda: model.load_adapter(tmp_path, "second"),
        lambda: get_peft_model(model.get_base_model(), SVDRoutingConfig()),
        lambda: get_peft_model(model, SVDRoutingConfig()),
        lambda: inject_adapter_in_model(SVDRoutingConfig(), model.get_base_model(), "second"),
    ]
    for attempt in attempts:
        with pytest.raises(AdapterStateError, match=r"already has the SVD routing adapter 'default'.*is refused"):
            attempt()
        assert list(model.peft_config) == ["default"]
        assert model.peft_config["default"].fingerprints == fingerprints(model)
        assert torch.equal(logits(model), whole)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"svd_dtype": "bfloat16"}, r"svd_dtype is 'bfloat16': choose one of"),
        ({"target_modules": ".*q_proj", "layers_to_transform": 1}, r"layers_to_transform needs target_modules to be"),
        ({"layers_to_transform": [1]}, r"layers_to_transform needs target_modules to be a list of endings.* is None"),
        ({"target_modules": ["q_proj"], "layers_pattern": "h"}, r"without layers_to_transform"),
    ],
)
def test_options_that_no_adapter_can_have_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(AdapterConfigError, match=match):
        SVDRoutingConfig(**options)


# --- merging and shipping


def test_merge_adapter_and_back() -> None:
    model = randomise(wrapped(torch.bfloat16))
    whole = logits(model)
    model.merge_adapter(safe_merge=True)
    assert all(module.merged for module in model.modules() if isinstance(module, Linear))
    model.unmerge_adapter()
    assert torch.equal(logits(model), whole)
    assert torch.equal(logits(model.unload()), logits(base(torch.bfloat16)))


def test_merge_and_unload_merges_what_runs_and_frees_the_model_for_another_adapter() -> None:
    model = randomise(wrapped())
    expected = {
        f"{module.module_name}.weight": module.merged_weight(deployed_only=False)
        for module in model.modules()
        if isinstance(module, Linear)
    }
    plain = model.merge_and_unload()
    state = plain.state_dict()
    assert all(torch.equal(state[name], weight) for name, weight in expected.items())
    assert state.keys() == base().state_dict().keys()
    assert torch.equal(logits(get_peft_model(plain, SVDRoutingConfig())), logits(plain))


@pytest.mark.parametrize("merge", ["merge_adapter", "merge_and_unload"])
def test_a_merge_that_is_refused_halfway_leaves_every_weight_pristine(merge: str) -> None:
    model = randomise(wrapped())
    with torch.no_grad():
        list(routed_vectors(model).values())[5].quarantine[0] = float("inf")
    with pytest.raises(AdapterStateError, match="values that are not finite"):
        getattr(model, merge)(safe_merge=True)
    assert not any(module.merged for module in model.modules() if isinstance(module, Linear))
    with ablate_quarantine(model), model.disable_adapter():
        assert torch.equal(logits(model), logits(base()))


def trace_of_quarantine(model: nn.Module) -> list[str]:
    names = [*dict(model.named_parameters()), *dict(model.named_buffers()), *dict(model.named_modules())]
    names += [name for module in model.modules() for name in vars(module)]
    names += [repr(vars(model)), repr(getattr(model, "config", ""))]
    return [name for name in names if "quarantine" in name or "svd_routing" in name.lower()]


@pytest.mark.parametrize("merged", [True, False])
def test_the_exported_model_is_plain_holds_no_trace_and_leaves_the_original(tmp_path: Path, merged: bool) -> None:
    model = randomise(wrapped())
    whole = logits(model)
    layers = {module.module_name: module for module in model.modules() if isinstance(module, Linear)}
    if merged:
        model.merge_adapter()
    exported = export_deployed(model)
    if merged:
        model.unmerge_adapter()
    assert type(exported) is transformers.Qwen3ForCausalLM
    assert trace_of_quarantine(exported) == []
    assert exported.state_dict().keys() == base().state_dict().keys()
    assert exported.lm_head.weight is exported.model.embed_tokens.weight
    assert torch.equal(logits(model), whole)
    own = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert own.isdisjoint(tensor.data_ptr() for tensor in exported.state_dict().values())
    # Elementwise over each module's own input: an entry of W', then a product with x; both sides round along chains of
    # at most d_in + r operations and a few more (Higham, lemma 3.1).
    u = torch.finfo(torch.float32).eps / 2
    for name, layer in layers.items():
        x = torch.randn(16, layer.in_features)
        with ablate_quarantine(model):
            ablated = layer(x)
        n = 2 * (layer.in_features + layer.Vh.shape[0] + 8)
        magnitude = layer.base_layer.weight.abs() + (layer.U.abs() * layer.deployed.abs()) @ layer.Vh.abs()
        error = (exported.get_submodule(name)(x) - ablated).abs()
        assert (error <= n * u / (1 - n * u) * (x.abs() @ magnitude.T)).all()
    exported.save_pretrained(tmp_path)
    assert "adapter_config.json" not in files(tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    assert torch.equal(logits(again), logits(exported))


def test_exporting_a_plainly_injected_model(tmp_path: Path) -> None:
    randomise(wrapped()).save_pretrained(tmp_path / "adapter")
    plain = base()
    plain.load_adapter(str(tmp_path / "adapter"))
    exported = export_deployed(plain)
    assert trace_of_quarantine(exported) == []
    exported.save_pretrained(tmp_path / "shipped")
    assert load_file(tmp_path / "shipped" / "model.safetensors").keys() == exported.state_dict().keys() - {
        "lm_head.weight"
    }
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "shipped", attn_implementation="eager").eval()
    assert torch.equal(logits(again), logits(exported))
    sequential = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    inject_adapter_in_model(SVDRoutingConfig(), sequential)
    randomise(sequential)
    assert type(export_deployed(sequential)[0]) is nn.Linear


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager"), lambda model: model.base_model]
)
def test_wrappers_are_taken_off_before_shipping(tmp_path: Path, wrap: Callable[[nn.Module], nn.Module]) -> None:
    model = randomise(wrapped())
    exported = export_deployed(wrap(model))
    assert type(exported) is transformers.Qwen3ForCausalLM
    assert trace_of_quarantine(exported) == []
    save_deployed(wrap(model), tmp_path)
    assert len(routed_vectors(PeftModel.from_pretrained(base(), tmp_path))) == 14


def test_a_container_of_an_adapted_model_is_not_shipped(tmp_path: Path) -> None:
    holder = nn.ModuleDict({"policy": wrapped()})
    for ship in (export_deployed, lambda model: save_deployed(model, tmp_path / "shipped")):
        with pytest.raises(AdapterStateError, match="ModuleDict is not itself the model that the adapter was injected"):
            ship(holder)


def test_exporting_in_the_middle_of_a_checkpointed_training_run() -> None:
    model = base()
    model.gradient_checkpointing_enable()
    model = randomise(get_peft_model(model, SVDRoutingConfig())).train()
    gradients(model)
    exported = export_deployed(model).eval()
    with ablate_quarantine(model):
        ablated = logits(model.eval())
    torch.testing.assert_close(logits(exported), ablated)
    assert all(parameter.grad is None for parameter in exported.parameters())


@pytest.mark.parametrize("merged", [True, False])
def test_the_deployment_checkpoint_is_the_ablated_model_bit_for_bit(tmp_path: Path, merged: bool) -> None:
    model = randomise(wrapped(torch.bfloat16))
    with ablate_quarantine(model):
        ablated = logits(model)
    if merged:
        model.merge_adapter()
    path = tmp_path / "new" / "shipped"
    save_deployed(model, path)
    assert files(path.parent) == {"shipped"}
    assert files(path) == {"adapter_model.safetensors", "adapter_config.json"}
    assert b"quarantine" not in (path / "adapter_model.safetensors").read_bytes()
    loaded = PeftModel.from_pretrained(base(torch.bfloat16), path)
    assert torch.equal(logits(loaded), ablated)
    assert not loaded.peft_config["default"].quarantine
    assert all(pair.quarantine is None for pair in routed_vectors(loaded).values())
    assert not any("quarantine" in name for name in loaded.state_dict())
    assert model.peft_config["default"].quarantine
    with ablate_quarantine(loaded):
        assert torch.equal(logits(loaded), ablated)


def test_a_deployment_checkpoint_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError("disk full")

    model = wrapped()
    monkeypatch.setattr(export, "save_file", fails)
    with pytest.raises(OSError, match="disk full"):
        save_deployed(model, tmp_path / "shipped")
    assert files(tmp_path) == set()


def test_a_deployment_checkpoint_never_overwrites(tmp_path: Path) -> None:
    model = wrapped()
    (tmp_path / "empty").mkdir()
    save_deployed(model, tmp_path / "empty")
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "empty", tmp_path / "file"):
        with pytest.raises(OutputExistsError, match="exists and is not an empty directory"):
            save_deployed(model, path)
    assert (tmp_path / "file").read_text() == "mine"


def test_there_is_nothing_to_ship_without_an_adapter(tmp_path: Path) -> None:
    for ship in (export_deployed, lambda model: save_deployed(model, tmp_path / "shipped")):
        with pytest.raises(AdapterStateError, match="Qwen3ForCausalLM holds no SVD routing adapter"):
            ship(base())
    assert files(tmp_path) == set()
