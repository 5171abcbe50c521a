"""Euclidean norms of gradients whose squares would overflow or vanish.

In float32 the square of 1e20 is infinite and the square of 1e-25 is zero, while both are ordinary gradients. With
m = max |x_i|,

    ‖x‖ = m · ‖x / m‖,    1 <= ‖x / m‖ <= sqrt(n),

so nothing overflows but a norm that has no representation itself (Blue 1978, "A portable Fortran program to find the
Euclidean norm of a vector", ACM TOMS 4(1)).
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """What sums over `dtype` are computed in: float32 for the half types, the dtype itself otherwise."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def peak_and_norm(x: Float[Tensor, "*batch n"]) -> tuple[Float[Tensor, "*batch 1"], Float[Tensor, "*batch 1"]]:
    """(m, ‖x / m‖) along the last axis, with m = max |x_i|, or 1 where x is zero: ‖x‖ is their product.

    NaN and infinity make the product NaN. The last axis must not be empty.
    """
    peak = x.abs().amax(dim=-1, keepdim=True)
    peak = torch.where(peak > 0, peak, torch.ones_like(peak))
    return peak, torch.linalg.vector_norm(x / peak, dim=-1, keepdim=True)


def global_norm(*sets: Iterable[Tensor]) -> Float[Tensor, ""]:
    """The 2-norm of everything in `sets`, read as one long vector; a float64 scalar, 0 for nothing at all.

    Any mixture of shapes, dtypes and devices; sparse tensors count by their values. The result is on the device of
    the first tensor. No synchronisation with the device. Relative error at most (n/2 + 4) u to first order, n the
    number of entries and u the unit roundoff of the coarsest working dtype (half types are summed in float32).
    """
    alike: defaultdict[tuple[torch.dtype, torch.device], list[Tensor]] = defaultdict(list)
    for tensors in sets:
        for tensor in tensors:
            values = tensor.coalesce().values() if tensor.is_sparse else tensor
            if values.numel():
                alike[values.dtype, values.device].append(values.reshape(-1))
    if not alike:
        return torch.zeros((), dtype=torch.float64)
    home = next(iter(alike))[1]
    norms = []
    for (dtype, _), flat in alike.items():
        peak, scaled = peak_and_norm(torch.cat(flat).to(working_dtype(dtype)))
        # The product in float64: a float32 norm above 3.4e38 still has a value there.
        norms.append((peak.to(home, torch.float64) * scaled.to(home, torch.float64)).squeeze())
    if len(norms) == 1:
        return norms[0]
    peak, scaled = peak_and_norm(torch.stack(norms))
    return (peak * scaled).squeeze()
