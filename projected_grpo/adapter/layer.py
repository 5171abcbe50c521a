"""One adapted Linear: y = W x + b + U diag(deployed + quarantine) Vh x."""

from typing import Any, cast

import torch
from jaxtyping import Float
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import linear

from projected_grpo.adapter.decomposition import decomposition_of, fingerprint
from projected_grpo.adapter.errors import AdapterStateError, FingerprintMismatchError
from projected_grpo.norms import in_own_dtypes


class Vector(nn.Module):
    """A trainable vector, zero at the start.

    It is a module with a `.weight`, so that parameter names read `<module>.<vector>.<adapter>.weight`: tools that look
    for ".default." in a name (TRL does, to find an adapter's parameters) miss the entries of a ParameterDict.
    """

    def __init__(self, size: int, *, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size, device=device, dtype=dtype))


class Linear(nn.Module, BaseTunerLayer):  # type: ignore[misc]  # PEFT is untyped
    """A frozen Linear and two trainable vectors along its singular directions.

    The term is added to what the base layer returns, so at zero vectors the outputs are the base model's bit for bit
    (up to the sign of zero). U and Vh are kept in W's dtype and are never saved: they follow from W. The vectors are in
    float32, or float64 where W is: in bfloat16 small updates would be rounded away.
    """

    adapter_layer_names: tuple[str, ...] = ("svd_routing_deployed", "svd_routing_quarantine")

    base_layer: nn.Linear
    active_adapters: list[str]
    U: Tensor  # (d_out, r)
    Vh: Tensor  # (r, d_in)
    pristine: Tensor | None  # W while merged, (d_out, d_in)

    def __init__(self, base_layer: nn.Linear, module_name: str) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.module_name = module_name
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        self.svd_routing_deployed = nn.ModuleDict()
        self.svd_routing_quarantine = nn.ModuleDict()
        self.fingerprint, self.svd_dtype = "", ""
        self.merged_adapters: list[str] = []
        self._disable_adapters = False
        self._ablations = 0  # depth of ablate_quarantine blocks
        self.materialized: Tensor | None = None  # inside a block of that name: W + U diag(δ) Vh with its graph
        self.rows: list[Tensor] | None = None  # inside a row_gradients block: what each forward pass scaled by
        self.register_buffer("U", None, persistent=False)
        self.register_buffer("Vh", None, persistent=False)
        self.register_buffer("pristine", None, persistent=False)

    def add_vectors(self, adapter_name: str, *, svd_dtype: str, quarantine: bool, fingerprint: str) -> None:
        """Gives the layer its basis and its vectors, both zero."""
        weight = self.base_layer.weight
        self.U, _, self.Vh = decomposition_of(weight, svd_dtype, fingerprint)
        self.fingerprint, self.svd_dtype = fingerprint, svd_dtype
        dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        size = self.Vh.shape[0]
        self.svd_routing_deployed[adapter_name] = Vector(size, device=weight.device, dtype=dtype)
        if quarantine:
            self.svd_routing_quarantine[adapter_name] = Vector(size, device=weight.device, dtype=dtype)

    def check_weight(self) -> None:
        """Checks that W, the pristine one while merged, is still the weight that the basis was computed from.

        Hashes all of W. Raises FingerprintMismatchError if it has changed.
        """
        now = fingerprint(self.base_layer.weight if self.pristine is None else self.pristine, self.svd_dtype)
        if now != self.fingerprint:
            raise FingerprintMismatchError(
                f"The weight of {self.module_name} has changed since its singular basis was computed (fingerprint "
                f"{now[:12]}, recorded {self.fingerprint[:12]}): load and cast the base model first, then adapt it."
            )

    @property
    def deployed(self) -> nn.Parameter | None:
        """The vector that is shipped, (r,); None once the adapter has been deleted."""
        return cast(nn.Parameter | None, _only(self.svd_routing_deployed))

    @property
    def quarantine(self) -> nn.Parameter | None:
        """The vector that is not shipped, (r,); None in a deployment checkpoint."""
        return cast(nn.Parameter | None, _only(self.svd_routing_quarantine))

    @property
    def ablated(self) -> bool:
        """Whether the forward pass leaves the quarantine out just now."""
        return self._ablations > 0

    def begin_ablation(self) -> None:
        """Leaves the quarantine out until the matching end_ablation. Raises AdapterStateError while it is merged."""
        if self.merged and self.quarantine is not None:
            raise AdapterStateError(
                f"The quarantine of {self.module_name} is merged into its weight and cannot be left out: "
                "call unmerge_adapter() first."
            )
        self._ablations += 1

    def end_ablation(self) -> None:
        """Closes one begin_ablation."""
        self._ablations -= 1

    def forward(self, x: Float[Tensor, "*batch d_in"], *args: Any, **kwargs: Any) -> Float[Tensor, "*batch d_out"]:
        """Returns the base layer's output plus the adapter's, in the base layer's dtype."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        if self.materialized is not None and not self.disable_adapters and not self.ablated:
            whole: Tensor = functional_call(self.base_layer, {"weight": self.materialized}, (x, *args), kwargs)
            return whole
        base: Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged or not self._active():
            return base
        x = BaseTunerLayer._cast_input_dtype(self, x, self.Vh.dtype)
        # The product is taken in the vectors' dtype: their gradient then sums over tokens in that precision.
        scaled = linear(x, self.Vh) * self._factor(x)  # (*batch, r)
        return (base + linear(scaled.to(self.U.dtype), self.U)).to(base.dtype)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Replaces W by W + U diag(deployed + quarantine) Vh, and keeps the pristine W until unmerge.

        What is merged is what runs, the quarantine included: `export_deployed` makes the model to ship. `safe_merge`
        refuses a merged weight that is not finite. Raises AdapterStateError, W untouched, for that and inside an
        ablate_quarantine block.
        """
        names = self.active_adapters if adapter_names is None else adapter_names
        if not any(name in self.svd_routing_deployed for name in names):
            return
        self.merge_vectors(deployed_only=False, check_finite=safe_merge)

    def merge_vectors(self, *, deployed_only: bool, check_finite: bool = False) -> None:
        """Does what merge says, or leaves the quarantine out: the layer then runs as it will be shipped."""
        if self.merged:
            return
        if self.ablated:
            raise AdapterStateError(
                f"The module {self.module_name} cannot be merged inside an ablate_quarantine block: leave the block "
                "first, or call export_deployed for a model without the quarantine."
            )
        weight = self.merged_weight(deployed_only=deployed_only)
        if check_finite and not torch.isfinite(weight).all():
            raise AdapterStateError(
                f"The merged weight of {self.module_name} has values that are not finite: check the adapter's vectors."
            )
        self.pristine = self.base_layer.weight.data
        self.base_layer.weight.data = weight
        self.merged_adapters = list(self.svd_routing_deployed)

    def unmerge(self) -> None:
        """Puts the pristine W back, bit for bit: subtracting the update again would drift with every cycle."""
        if self.pristine is not None:
            self.base_layer.weight.data = self.pristine
            self.pristine = None
            self.merged_adapters = []

    def materialize(self) -> None:
        """Makes the weight that the vectors stand for, with a graph to them; it runs while `materialized` is set.

        Raises AdapterStateError while merged or ablated.
        """
        if self.merged or self.ablated:
            raise AdapterStateError(
                f"The module {self.module_name} is merged or inside an ablate_quarantine block: unmerge it, or leave "
                "the block first."
            )
        delta = self._delta(deployed_only=False).to(self.U.dtype)
        self.materialized = torch.addmm(self.base_layer.weight, self.U * delta, self.Vh)

    def merged_weight(self, *, deployed_only: bool) -> Float[Tensor, "d_out d_in"]:
        """Returns what a plain Linear needs to act the same, in W's dtype, from the pristine W and rounded once."""
        weight = self.base_layer.weight.data if self.pristine is None else self.pristine
        with torch.no_grad(), in_own_dtypes():
            delta = self._delta(deployed_only=deployed_only)
            U, Vh = self.U.to(delta.dtype), self.Vh.to(delta.dtype)
            return torch.addmm(weight.to(delta.dtype), U * delta, Vh).to(weight.dtype)

    def _active(self) -> bool:
        return any(name in self.svd_routing_deployed for name in self.active_adapters)

    def _factor(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*factors r"]:
        """The vectors' sum, (r,); while rows are kept, a copy of it for each row of the batch, (B, 1, ..., r)."""
        delta = self._delta(deployed_only=self.ablated)
        if self.rows is None or not torch.is_grad_enabled() or not delta.requires_grad:
            return delta
        row = delta.expand(x.shape[0], *(1 for _ in x.shape[1:-1]), -1)
        row.retain_grad()
        self.rows.append(row)
        return row

    def _delta(self, *, deployed_only: bool) -> Float[Tensor, " r"]:
        deployed, quarantine = _only(self.svd_routing_deployed), _only(self.svd_routing_quarantine)
        if deployed is None:
            raise AdapterStateError(f"The adapter of {self.module_name} was deleted: add or load one first.")
        return deployed if deployed_only or quarantine is None else deployed + quarantine

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """Moves the vectors without PEFT's cast to W's dtype, which would round saved float32 vectors to bfloat16."""
        for vectors in (self.svd_routing_deployed, self.svd_routing_quarantine):
            if adapter_name in vectors and vectors[adapter_name].weight.device.type != "meta":
                vectors[adapter_name].to(self.base_layer.weight.device if device is None else device)

    def __repr__(self) -> str:
        return "svd_routing." + super().__repr__()


def _only(vectors: nn.ModuleDict) -> Tensor | None:
    """The one vector there is; a plain tensor while torch.func.functional_call stands in for the parameter."""
    return next((cast(Tensor, vector.weight) for vector in vectors.values()), None)
