"""Gradient routing for GRPO: split along a hack basis, train what is kept, quarantine what is removed.

The adapter, which brings PEFT along, is in `projected_grpo.adapter`.
"""

from projected_grpo.basis import Basis
from projected_grpo.cache import cache_in
from projected_grpo.claims import Claim, Guarantee
from projected_grpo.diagnostics import Diagnostics
from projected_grpo.errors import ProjectedGRPOError
from projected_grpo.extraction import extract_basis, overlap
from projected_grpo.kernels import use_kernels
from projected_grpo.optimizer import RoutedOptimizer
from projected_grpo.posthoc import project_out
from projected_grpo.split import GroupedSplit, SplitResult, SplitRule, split
from projected_grpo.vectors import VectorPair

__all__ = [
    "Basis",
    "Claim",
    "Diagnostics",
    "GroupedSplit",
    "Guarantee",
    "ProjectedGRPOError",
    "RoutedOptimizer",
    "SplitResult",
    "SplitRule",
    "VectorPair",
    "cache_in",
    "extract_basis",
    "overlap",
    "project_out",
    "split",
    "use_kernels",
]
