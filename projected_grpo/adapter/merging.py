"""Whole weights W + U diag(δ) Vh for the length of a block: merged to sample from, or with a graph to train."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from projected_grpo.adapter.vectors import layers_or_refuse


@contextmanager
def merged(model: nn.Module, *, deployed_only: bool = False) -> Iterator[None]:
    """Inside the block every adapted weight is W + U diag(δ) Vh, and every exit puts the pristine W back, bit for bit.

    Materialising the weights pays back after some 5 to 26 decoding steps; train outside the block, for the vectors have
    no part in its graph.

    Args:
        model: an adapted model, not merged.
        deployed_only: δ is the deployed vectors alone, as in the model that is shipped; else what runs in training.

    Raises AdapterStateError if the model has no adapter, or inside an ablate_quarantine block.
    """
    layers = layers_or_refuse(model)
    try:
        for layer in layers.values():
            layer.merge_vectors(deployed_only=deployed_only)
        yield
    finally:
        for layer in layers.values():
            layer.unmerge()


@contextmanager
def materialized(model: nn.Module) -> Iterator[None]:
    """Inside the block adapted layers run W' = W + U diag(δ) Vh, made once when it begins, with a graph to the vectors.

    The additive form runs three products for each token, and three more backward, where this runs one of each and a
    few per block. One backward pass belongs to a block, for it frees the graph of W'. Gradients are summed over tokens
    in the dtype of the weights, which for half types is coarser than what the additive form does.

    Raises AdapterStateError if the model has no adapter, while it is merged, or inside an ablate_quarantine block.

    Example:
        with materialized(model):
            loss(model, batch).backward()
    """
    layers = layers_or_refuse(model)
    try:
        for layer in layers.values():
            layer.materialize()
        yield
    finally:
        for layer in layers.values():
            layer.materialized = None
