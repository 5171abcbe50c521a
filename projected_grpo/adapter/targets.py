"""Which modules an adapter asks for, and whether they can be adapted; nothing is changed before all answers are in."""

import torch
from torch import nn

from projected_grpo.adapter.errors import FingerprintMismatchError, NoMatchingModulesError, UnsupportedModuleError

_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_SHOWN = 8


def no_match_error(model: nn.Module, target_modules: object) -> NoMatchingModulesError:
    """Returns the error that says which names there are."""
    endings = sorted(
        {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    )
    there_are = (
        f"names that exist are for instance {', '.join(endings[:_SHOWN])}" if endings else "it has no Linear at all"
    )
    wanted = sorted(target_modules) if isinstance(target_modules, (set, list)) else target_modules
    return NoMatchingModulesError(
        f"target_modules={wanted!r} matches no module of {type(model).__name__}: {there_are}."
    )


def check_supported(model: nn.Module, names: list[str]) -> None:
    """Checks that every named module is a plain, unshared Linear.

    Raises UnsupportedModuleError for the first one that is not.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    for name in names:
        module = modules[name]
        reason = _unsupported(module, modules[name.rpartition(".")[0]])
        if reason is not None:
            raise UnsupportedModuleError(
                f"The module {name} cannot be adapted, {reason}: leave it out of target_modules."
            )
        others = [other for other in owners[id(module.weight)] if other != f"{name}.weight"]
        if others:
            raise UnsupportedModuleError(
                f"The module {name} cannot be adapted, its weight is tied to {others[0]}: "
                "leave it out of target_modules, or untie the two."
            )


def check_fingerprints(recorded: dict[str, str], found: dict[str, str]) -> None:
    """Checks that the base model is the one whose bases were recorded; an empty record fits every model.

    Raises FingerprintMismatchError for the first module that differs.
    """
    for name in sorted(recorded.keys() | found.keys()) if recorded else ():
        if name not in found:
            raise FingerprintMismatchError(
                f"The adapter was trained on a module {name} which is not adapted in this base model: "
                "load it onto the model that it was trained on."
            )
        if name not in recorded:
            raise FingerprintMismatchError(
                f"The adapter has no vectors for the module {name}: load it with the target_modules it was saved with, "
                "onto the model that it was trained on."
            )
        if recorded[name] != found[name]:
            raise FingerprintMismatchError(
                f"The weight of {name} is not the one that this adapter was trained on "
                f"(fingerprint {found[name][:12]}, recorded {recorded[name][:12]}): "
                "load the same base model in the same dtype."
            )


def _unsupported(module: nn.Module, parent: nn.Module) -> str | None:
    """Says what is wrong with a module, or nothing."""
    if not isinstance(module, nn.Linear) or type(module).forward is not nn.Linear.forward:
        return f"it is a {type(module).__module__}.{type(module).__qualname__} and not a plain torch.nn.Linear"
    if isinstance(parent, nn.MultiheadAttention):
        return "MultiheadAttention reads its weight without calling it"
    weight = module.weight
    if type(weight.data) is not torch.Tensor or weight.dtype not in _FLOATING:
        return f"its weight is quantised or distributed ({type(weight.data).__name__}, {weight.dtype})"
    if weight.is_meta:
        return "its weight is on the meta device and holds no values"
    if weight.numel() == 0 or not torch.isfinite(weight).all():
        return "its weight is empty or has values that are not finite"
    return None
