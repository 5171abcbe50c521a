"""The gradient of every row of a batch, out of one backward pass.

    y_b = W x_b + U ((Vh x_b) · δ)          ∂L/∂δ = Σ_b g_b,      g_b = Σ_t (Vh x_bt) · (Uᵀ ∂L/∂y_bt)

δ is a vector, so what a row adds to its gradient is the same product that autograd sums anyway, before the sum over
rows. On a CPU that hardly shows, where a second backward pass for a second source of rollouts costs half of one.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from projected_grpo.adapter.layer import Linear
from projected_grpo.adapter.vectors import layers_or_refuse


class RowGradients:
    """What the rows of the batches since the block began have given; to be read after a backward pass."""

    def __init__(self, layers: Mapping[str, Linear]) -> None:
        self._layers = layers

    def take(self) -> dict[str, Float[Tensor, "rows r"]]:
        """Module → the gradient of each row, (B, r), of one forward and backward pass; forgets them.

        A module that saw no part of the batch, as an expert that no token was sent to, is left out.
        """
        taken = {}
        for name, layer in self._layers.items():
            passes = [row.grad.flatten(1) for row in layer.rows or () if row.grad is not None and len(row)]
            if passes:
                taken[name] = passes[0] if len(passes) == 1 else torch.stack(passes).sum(0)
            layer.rows = []
        return taken


@contextmanager
def row_gradients(model: nn.Module) -> Iterator[RowGradients]:
    """Inside the block adapted layers keep what each row of a batch adds to the gradient of their vectors.

    Rows are the first dimension of what a layer is given, so layers that flatten the batch have no meaning here. The
    sums that land in `.grad` are taken over the kept rows, in their order.

    Raises AdapterStateError if the model has no adapter.

    Example:
        with row_gradients(model) as rows:
            loss(model, batch).backward()
            per_row = rows.take()      # module → (B, r)
    """
    layers = layers_or_refuse(model)
    try:
        for layer in layers.values():
            layer.rows = []
        yield RowGradients(layers)
    finally:
        for layer in layers.values():
            layer.rows = None
