"""What other parts of the package see of an adapted model: its layers and vectors, by the base model's names."""

from torch import nn

from projected_grpo.adapter.errors import AdapterStateError
from projected_grpo.adapter.layer import Linear
from projected_grpo.vectors import VectorPair


def adapted_layers(model: nn.Module) -> dict[str, Linear]:
    """Returns the adapted layers of a model; empty where there are none.

    The keys are the modules' names in the base model, whatever PEFT, DistributedDataParallel or torch.compile have
    wrapped around it since. Raises AdapterStateError if two adapted models inside one share names.
    """
    layers: dict[str, Linear] = {}
    for module in model.modules():
        if isinstance(module, Linear) and module.deployed is not None:
            if module.module_name in layers:
                raise AdapterStateError(
                    f"The module name {module.module_name} occurs twice: this model holds several adapted models, "
                    "so pass one of them at a time."
                )
            layers[module.module_name] = module
    return layers


def layers_or_refuse(model: nn.Module) -> dict[str, Linear]:
    """Returns the adapted layers of a model. Raises AdapterStateError where there are none."""
    layers = adapted_layers(model)
    if not layers:
        raise AdapterStateError(
            f"{type(model).__name__} holds no SVD routing adapter: "
            "wrap it with get_peft_model(model, SVDRoutingConfig()), or load one first."
        )
    return layers


def routed_vectors(model: nn.Module) -> dict[str, VectorPair]:
    """Returns each adapted module's two trainable vectors; the keys are the modules' names in the base model.

    Call it after get_peft_model and after accelerator.prepare: both replace Parameter objects.
    Raises AdapterStateError if the model has no adapter.
    """
    return {
        name: VectorPair(deployed, layer.quarantine)
        for name, layer in layers_or_refuse(model).items()
        if (deployed := layer.deployed) is not None
    }


def fingerprints(model: nn.Module) -> dict[str, str]:
    """Returns the fingerprint of the basis that each adapted module was given, by the module's name in the base model.

    Every adapted weight is hashed as it is now, the pristine one while merged: a pass over all of them, so nothing for
    every step. Raises FingerprintMismatchError for a weight that has changed since its basis was computed, by a write,
    a load_state_dict or a cast, and AdapterStateError if the model has no adapter.
    """
    layers = layers_or_refuse(model)
    for layer in layers.values():
        layer.check_weight()
    return {name: layer.fingerprint for name, layer in layers.items()}
