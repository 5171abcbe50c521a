"""What is shipped: the deployed vectors, with no trace of the quarantine."""

import copy
import shutil
import uuid
from pathlib import Path
from typing import Any

from peft import PeftModel
from safetensors.torch import save_file
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from projected_grpo.adapter.config import SVDRoutingConfig
from projected_grpo.adapter.errors import AdapterStateError, OutputExistsError
from projected_grpo.adapter.model import SVDRoutingModel
from projected_grpo.adapter.vectors import layers_or_refuse, routed_vectors
from projected_grpo.whole_files import READABLE


def export_deployed(model: nn.Module) -> nn.Module:
    """Returns a new plain model, the deployed vectors merged into its weights, the quarantine nowhere in it.

    The weights are computed from the pristine W and rounded once. The model that was passed stays as it is, merged or
    not. Raises AdapterStateError if it has no adapter.
    """
    base = _base_model(model)
    memo: dict[int, object] = {}
    # deepcopy takes what it finds in memo for copied already: a plain Linear in the place of each adapted one.
    for layer in layers_or_refuse(base).values():
        merged = layer.merged_weight(deployed_only=True)
        memo[id(layer.base_layer.weight)] = nn.Parameter(merged, requires_grad=layer.base_layer.weight.requires_grad)
        memo[id(layer)] = copy.deepcopy(layer.base_layer, memo)
    exported = copy.deepcopy(base, memo)
    _forget_adapter(exported)
    return exported


def save_deployed(model: nn.Module, path: str | Path) -> None:
    """Writes an adapter checkpoint of the deployed vectors alone, for PeftModel.from_pretrained.

    It appears under its name when it is complete, or not at all. Raises OutputExistsError if the path is a file or a
    directory that is not empty, and AdapterStateError if the model has no adapter.
    """
    path = Path(path)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise OutputExistsError(f"{path} exists and is not an empty directory: choose another path or remove it first.")
    base = _base_model(model)
    tensors = {
        f"base_model.model.{name}.svd_routing_deployed.weight": pair.deployed.detach().cpu().contiguous()
        for name, pair in routed_vectors(base).items()
    }
    config = _deployed_config(base)
    origin = {"base_model_class": type(base).__name__, "parent_library": type(base).__module__}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f".{path.name}.{uuid.uuid4().hex}.partial"
    partial.mkdir()
    try:
        save_file(tensors, partial / "adapter_model.safetensors", metadata={"format": "pt"})
        (partial / "adapter_model.safetensors").chmod(READABLE)
        config.save_pretrained(str(partial), auto_mapping_dict=origin if config.task_type is None else None)
        partial.replace(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _base_model(model: nn.Module) -> nn.Module:
    """Takes the wrappers off, down to the model that the adapter was injected into; its layers stay adapted."""
    layers_or_refuse(model)
    base = model
    while (inner := _wrapped(base)) is not None:
        base = inner
    if "peft_config" not in vars(base):
        raise AdapterStateError(
            f"{type(base).__name__} is not itself the model that the adapter was injected into, but holds it: "
            "pass that model, or the PeftModel around it."
        )
    return base


def _wrapped(model: Any) -> nn.Module | None:
    if isinstance(model, PeftModel):
        inner = model.base_model
    elif isinstance(model, SVDRoutingModel):
        inner = model.model
    elif isinstance(model, (DataParallel, DistributedDataParallel)):
        inner = model.module
    else:
        inner = getattr(model, "_orig_mod", None)  # torch.compile's wrapper
    return inner if isinstance(inner, nn.Module) else None


def _forget_adapter(model: Any) -> None:
    """Removes the marks of PEFT and of transformers' load_adapter, which would save an adapter again."""
    vars(model).pop("peft_config", None)
    if getattr(model, "_hf_peft_config_loaded", False):
        model._hf_peft_config_loaded = False
    # load_adapter replaces the conversions that save_pretrained reverts by those of the adapter file; without any,
    # save_pretrained takes the ones of the architecture.
    conversions = vars(model).get("_weight_conversions") or ()
    if any(SVDRoutingModel.prefix in pattern for entry in conversions for pattern in entry.source_patterns):
        del model._weight_conversions


def _deployed_config(base: Any) -> SVDRoutingConfig:
    config: SVDRoutingConfig = copy.deepcopy(next(iter(base.peft_config.values())))
    config.quarantine = False
    config.inference_mode = True
    if config.base_model_name_or_path is None:
        config.base_model_name_or_path = vars(base).get("name_or_path") or None
    return config
