"""The SVD routing adapter: two trainable vectors along the singular directions of each frozen Linear, as a PEFT tuner.

    y = W x + b + U diag(deployed + quarantine) Vh x        with W = U diag(S) Vh

Importing this package registers the method with PEFT:

    model = get_peft_model(base, SVDRoutingConfig(target_modules="all-linear"))
    vectors = routed_vectors(model)                 # what an optimizer routes gradients between
    with ablate_quarantine(model): ...              # the model as it will be shipped
    shipped = export_deployed(model)                # a plain model without the quarantine

Adapting the singular values alone is from Sun et al. 2025 (Transformer-squared, arXiv:2501.06252, section 3.1).
"""

from projected_grpo.adapter.ablation import ablate_quarantine
from projected_grpo.adapter.config import SVDRoutingConfig
from projected_grpo.adapter.decomposition import Decomposition, decompose, fingerprint
from projected_grpo.adapter.errors import (
    AdapterConfigError,
    AdapterStateError,
    FingerprintMismatchError,
    NoMatchingModulesError,
    OutputExistsError,
    UnsupportedModuleError,
)
from projected_grpo.adapter.export import export_deployed, save_deployed
from projected_grpo.adapter.layer import Linear
from projected_grpo.adapter.merging import materialized, merged
from projected_grpo.adapter.model import SVDRoutingModel
from projected_grpo.adapter.registration import register
from projected_grpo.adapter.row_gradients import RowGradients, row_gradients
from projected_grpo.adapter.vectors import fingerprints, routed_vectors
from projected_grpo.vectors import VectorPair

__all__ = [
    "AdapterConfigError",
    "AdapterStateError",
    "Decomposition",
    "FingerprintMismatchError",
    "Linear",
    "NoMatchingModulesError",
    "OutputExistsError",
    "RowGradients",
    "SVDRoutingConfig",
    "SVDRoutingModel",
    "UnsupportedModuleError",
    "VectorPair",
    "ablate_quarantine",
    "decompose",
    "export_deployed",
    "fingerprint",
    "fingerprints",
    "materialized",
    "merged",
    "register",
    "routed_vectors",
    "row_gradients",
    "save_deployed",
]

register()
