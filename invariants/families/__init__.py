"""The invariants, a family a file; importing this package registers them in the order in which they are reported."""
# ruff: noqa: I001  (sorted, they would be reported in the order of the alphabet)

from invariants.families import (
    split,
    split_edges,
    cos_pre,
    clip,
    optimizer,
    agreement,
    composition,
    refresh,
    drift,
    adapter,
    grpo,
    grpo_tokens,
    extraction,
    training,
    training_step,
    grading,
    logs,
    results,
)

__all__ = [
    "adapter",
    "agreement",
    "clip",
    "composition",
    "cos_pre",
    "drift",
    "extraction",
    "grading",
    "grpo",
    "grpo_tokens",
    "logs",
    "optimizer",
    "refresh",
    "results",
    "split",
    "split_edges",
    "training",
    "training_step",
]
