"""What the adapter refuses, in a sentence, before anything changes."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel, get_peft_model, inject_adapter_in_model
from peft_toys import base, logits, randomise, wrapped
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from projected_grpo.adapter import (
    AdapterConfigError,
    AdapterStateError,
    FingerprintMismatchError,
    Linear,
    NoMatchingModulesError,
    SVDRoutingConfig,
    UnsupportedModuleError,
    fingerprints,
    routed_vectors,
)

# PEFT asks transformers for the deprecated name when it wraps a model; the other one is the name that users know.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning"),
]


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
