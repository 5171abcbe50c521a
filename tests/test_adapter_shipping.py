"""Merging and exporting a tiny Qwen3: what ships has no quarantine."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftModel, get_peft_model, inject_adapter_in_model
from peft_toys import base, files, gradients, logits, randomise, wrapped
from safetensors.torch import load_file
from torch import nn

from projected_grpo.adapter import (
    AdapterStateError,
    Linear,
    OutputExistsError,
    SVDRoutingConfig,
    ablate_quarantine,
    export,
    export_deployed,
    routed_vectors,
    save_deployed,
)

# PEFT asks transformers for the deprecated name when it wraps a model; the other one is the name that users know.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning"),
]


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
