"""One adapted layer, fresh or trained, and how far rounding may move what it computes."""

import torch
from peft import inject_adapter_in_model
from torch import Tensor, nn

from projected_grpo.adapter import (
    Linear,
    SVDRoutingConfig,
)

DTYPES = [torch.float64, torch.float32, torch.bfloat16]
SHAPES = [(5, 5), (7, 4), (3, 9)]  # (d_in, d_out)


def adapted(
    d_in: int = 7, d_out: int = 4, *, dtype: torch.dtype = torch.float64, bias: bool = True, quarantine: bool = True
) -> Linear:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(d_in, d_out, bias=bias, dtype=dtype))
    inject_adapter_in_model(SVDRoutingConfig(target_modules=["0"], quarantine=quarantine), model)
    layer = model[0]
    assert isinstance(layer, Linear)
    return layer


def trained(d_in: int = 7, d_out: int = 4, **options: object) -> Linear:
    layer = adapted(d_in, d_out, **options)
    for vector in (layer.deployed, layer.quarantine):
        if vector is not None:
            nn.init.normal_(vector)
    return layer


def inputs(layer: Linear, *batch: int) -> Tensor:
    return torch.randn(*batch, layer.in_features, dtype=layer.base_layer.weight.dtype)


def rounding_bound(layer: Linear, x: Tensor, *, deployed_only: bool) -> Tensor:
    """How far two orders of evaluating (W + U diag(delta) Vh) x + b can lie apart, elementwise.

    Every product or sum rounds once, so a chain of n operations is off by at most n u / (1 - n u) times the sum of
    magnitudes (Higham, Accuracy and Stability of Numerical Algorithms, lemma 3.1). The longest chains: d_in for Vh x or
    W' x, r for U z or for an entry of U diag(delta) Vh, and a handful of sums and casts; both sides are off.
    """
    u = torch.finfo(x.dtype).eps / 2
    n = 2 * (layer.in_features + layer.Vh.shape[0] + 8)
    vector, quarantine = layer.deployed, layer.quarantine
    assert vector is not None
    delta = vector.abs() if deployed_only or quarantine is None else vector.abs() + quarantine.abs()
    magnitude = layer.base_layer.weight.abs() + (layer.U.abs() * delta) @ layer.Vh.abs()
    total = x.abs() @ magnitude.T + (0 if layer.base_layer.bias is None else layer.base_layer.bias.abs())
    return (n * u / (1 - n * u)) * total.detach()
