"""Merged weights for the length of a block: generation then costs what the base model's does."""

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
