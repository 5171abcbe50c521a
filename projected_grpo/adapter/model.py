"""The PEFT tuner: finds the modules, checks them all, then replaces them."""

import copy
from typing import Any, cast

from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, _maybe_include_all_linear_layers
from torch import Tensor, nn

from projected_grpo.adapter.config import SVDRoutingConfig
from projected_grpo.adapter.decomposition import fingerprint
from projected_grpo.adapter.errors import AdapterStateError, UnsupportedModuleError
from projected_grpo.adapter.layer import Linear
from projected_grpo.adapter.targets import check_fingerprints, check_supported, no_match_error


class SVDRoutingModel(BaseTuner):  # type: ignore[misc]  # PEFT is untyped
    """Adapts a model's Linear modules along their singular directions.

    `merge_adapter` and `merge_and_unload` merge what runs, so the quarantine too: the model that is shipped comes from
    `projected_grpo.adapter.export_deployed`.
    """

    prefix: str = "svd_routing_"
    tuner_layer_cls = Linear
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012  # PEFT's own declaration; None means "all-linear"

    def __init__(
        self,
        model: nn.Module,
        peft_config: SVDRoutingConfig | dict[str, SVDRoutingConfig],
        adapter_name: str,
        low_cpu_mem_usage: bool = False,
        state_dict: dict[str, Tensor] | None = None,
    ) -> None:
        _refuse_second(model, adapter_name)
        super().__init__(model, peft_config, adapter_name, low_cpu_mem_usage, state_dict)

    def inject_adapter(
        self,
        model: nn.Module,
        adapter_name: str,
        autocast_adapter_dtype: bool = True,
        low_cpu_mem_usage: bool = False,
        state_dict: dict[str, Tensor] | None = None,
    ) -> None:
        """Adapts the matching modules, or refuses before anything was changed.

        The configuration is copied first: the fingerprints that are filled in belong to this model, and a caller may
        use the same configuration for another one.
        """
        _refuse_second(model, adapter_name)
        self.peft_config[adapter_name] = copy.deepcopy(self.peft_config[adapter_name])
        super().inject_adapter(
            model,
            adapter_name,
            autocast_adapter_dtype=autocast_adapter_dtype,
            low_cpu_mem_usage=low_cpu_mem_usage,
            state_dict=state_dict,
        )

    def merge_adapter(self, adapter_names: list[str] | None = None, safe_merge: bool = False) -> None:
        """Merges what runs, the quarantine too, into every adapted weight, or into none.

        Raises AdapterStateError inside an ablate_quarantine block, and with `safe_merge` for a merged weight that is
        not finite; every weight is the pristine one then.
        """
        try:
            super().merge_adapter(adapter_names=adapter_names, safe_merge=safe_merge)
        except AdapterStateError:
            self.unmerge_adapter()
            raise

    def merge_and_unload(
        self, progressbar: bool = False, safe_merge: bool = False, adapter_names: list[str] | None = None
    ) -> nn.Module:
        """Returns the base model, what runs merged into it: the quarantine is in its weights for good.

        For the model that is shipped use export_deployed. Raises what merge_adapter raises, before it unloads anything.
        """
        self.merge_adapter(adapter_names=adapter_names, safe_merge=safe_merge)
        return cast(
            nn.Module,
            super().merge_and_unload(progressbar=progressbar, safe_merge=safe_merge, adapter_names=adapter_names),
        )

    def _check_tied_modules(self, model: nn.Module, peft_config: SVDRoutingConfig) -> None:
        """Replaces PEFT's warning about tied weights: `_prepare_model` refuses them by name."""

    def _prepare_adapter_config(self, peft_config: SVDRoutingConfig, model_config: dict[str, Any]) -> SVDRoutingConfig:
        if peft_config.target_modules is None:
            peft_config.target_modules = "all-linear"
        return peft_config

    def _prepare_model(self, peft_config: SVDRoutingConfig, model: nn.Module) -> None:
        """Makes every check that can refuse, and takes the fingerprints."""
        asked = peft_config.target_modules
        _maybe_include_all_linear_layers(peft_config, model)
        names = [name for name in _outer_names(model) if self._check_target_module_exists(peft_config, name)]
        if not names:
            raise no_match_error(model, asked)
        bare = [name for name in names if not isinstance(model.get_submodule(name), Linear)]
        check_supported(model, bare)
        found = {name: fingerprint(_weight(model, name), peft_config.svd_dtype) for name in names}
        check_fingerprints(peft_config.fingerprints, found)
        peft_config.fingerprints = found

    def _create_and_replace(
        self,
        peft_config: SVDRoutingConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if current_key not in peft_config.fingerprints:
            raise UnsupportedModuleError(
                f"The module {current_key} is in the state dict but target_modules does not match it: "
                "inject the adapter with the configuration that it was saved with."
            )
        layer = target if isinstance(target, Linear) else Linear(cast(nn.Linear, target), current_key)
        layer.add_vectors(
            adapter_name,
            svd_dtype=peft_config.svd_dtype,
            quarantine=peft_config.quarantine,
            fingerprint=peft_config.fingerprints[current_key],
        )
        if layer is not target:
            self._replace_module(parent, target_name, layer, target)


def _refuse_second(model: nn.Module, adapter_name: str) -> None:
    for module in model.modules():
        if isinstance(module, Linear) and module.deployed is not None:
            raise AdapterStateError(
                f"The model already has the SVD routing adapter {next(iter(module.svd_routing_deployed))!r}, which "
                f"holds both vectors, so another one ({adapter_name!r}) is refused: delete or unload the first, and "
                "use disable_adapter() for a reference policy."
            )


def _outer_names(model: nn.Module) -> list[str]:
    """The modules' names, without the insides of adapted layers."""
    names = [name for name, _ in model.named_modules() if name]
    inside = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, BaseTunerLayer))
    return [name for name in names if not name.startswith(inside)]


def _weight(model: nn.Module, name: str) -> Tensor:
    module = model.get_submodule(name)
    return cast(Tensor, (module.base_layer if isinstance(module, Linear) else module).weight)
