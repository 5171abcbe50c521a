"""The model as it will be shipped, for the length of a block."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from projected_grpo.adapter.vectors import adapted_layers


@contextmanager
def ablate_quarantine(model: nn.Module) -> Iterator[None]:
    """Inside the block the model runs with its deployed vectors alone.

    The quarantine's values are never touched: a depth counter in each layer leaves them out, so blocks nest and every
    exit restores the model, an exception included. Where there is no quarantine, or it is zero, the block changes
    nothing. Inside it the quarantine is not in the graph, so it gets no gradient.

    With gradient checkpointing call backward() inside the block as well: the forward pass is run a second time then,
    and after the block it would run with the quarantine.

    A copy of the model that is made inside the block stays ablated.

    Raises AdapterStateError if the quarantine is merged into the weights.
    """
    ablated = []
    try:
        for layer in adapted_layers(model).values():
            layer.begin_ablation()
            ablated.append(layer)
        yield
    finally:
        for layer in ablated:
            layer.end_ablation()
