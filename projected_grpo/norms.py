"""Euclidean norms of gradients whose squares would overflow or vanish.

In float32 the square of 1e20 is infinite and the square of 1e-25 is zero, while both are ordinary gradients. With
m = max |x_i|,

    ‖x‖ = m · ‖x / m‖,    1 <= ‖x / m‖ <= sqrt(n),

so nothing overflows but a norm that has no representation itself (Blue 1978, "A portable Fortran program to find the
Euclidean norm of a vector", ACM TOMS 4(1)).

In a wider dtype the squares have room: for float32 and the half types the sum is taken in float64, in one pass. Only
float64 itself needs m. Both are several times slower on a CPU than the plain norm, which is right too unless squares
overflow or vanish; so whoever reads a norm anyway takes `plain_norm`, and the careful one where it is not `trusted`.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

TRUSTED = (2.0**-40, 2.0**60)


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """What sums over `dtype` are computed in: float32 for the half types, the dtype itself otherwise."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


@contextmanager
def in_own_dtypes() -> Iterator[None]:
    """A block, or a function that it decorates, in which autocast is off on the CPU and on CUDA.

    Training loops may have their step inside `torch.autocast`, where products with V would be taken in a half type, so
    that a part along V stays. Gradients that flow through the block are the caller's: it ends before they do.
    """
    with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        yield


def peak_and_norm(x: Float[Tensor, "*batch n"]) -> tuple[Float[Tensor, "*batch 1"], Float[Tensor, "*batch 1"]]:
    """(m, ‖x / m‖) along the last axis, with m = max |x_i|, or 1 where x is zero: ‖x‖ is their product.

    NaN and infinity make the product NaN. The last axis must not be empty.
    """
    peak = x.abs().amax(dim=-1, keepdim=True)
    peak = torch.where(peak > 0, peak, torch.ones_like(peak))
    return peak, torch.linalg.vector_norm(x / peak, dim=-1, keepdim=True)


def lengths(x: Float[Tensor, "*batch n"]) -> Float[Tensor, " *batch"]:
    """‖x‖ along the last axis, in float64 and whatever the size of the entries; it must not be empty."""
    if x.dtype != torch.float64:
        norms: Tensor = torch.linalg.vector_norm(x, dim=-1, dtype=torch.float64)
        return norms
    peak, scaled = peak_and_norm(x)
    return (peak * scaled).squeeze(-1)


@in_own_dtypes()
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
    norms = [lengths(torch.cat(flat) if len(flat) > 1 else flat[0]).to(home) for flat in alike.values()]
    return norms[0] if len(norms) == 1 else lengths(torch.stack(norms))


def plain_lengths(x: Float[Tensor, "*batch n"]) -> Float[Tensor, " *batch"]:
    """‖x‖ along the last axis from plain sums of squares in the working dtype, which they keep; see `plain_norm`."""
    norms: Tensor = torch.linalg.vector_norm(x, dim=-1, dtype=working_dtype(x.dtype))
    return norms


def plain_norm(stacks: Sequence[Float[Tensor, "_ _"]], others: Sequence[Tensor] = ()) -> Float[Tensor, ""]:
    """The 2-norm of everything, from plain sums of squares; a float64 scalar on the device of the first tensor.

    Squares are taken in the working dtype. In the range TRUSTED they neither overflow nor, up to 2⁻⁴⁶ n of the result,
    vanish, so that the error is that of `global_norm`. No synchronisation with the device.

    Arguments:
        stacks: (m, r), summed row by row, and the rows in float64.
        others: dense, of any shape.
    """
    norms = [plain_lengths(stack) for stack in stacks]
    alike: defaultdict[tuple[torch.dtype, torch.device], list[Tensor]] = defaultdict(list)
    for tensor in others:
        alike[tensor.dtype, tensor.device].append(tensor)
    for (dtype, _), same in alike.items():
        norms.append(torch.stack(torch._foreach_norm(same, 2, working_dtype(dtype))))
    if not norms:
        return torch.zeros((), dtype=torch.float64)
    whole: Tensor = torch.linalg.vector_norm(torch.cat([norm.to(norms[0].device, torch.float64) for norm in norms]))
    return whole


def length_of_parts(parts: Sequence[float]) -> float:
    """That of a vector whose parts have these lengths; NaN is never forgotten, as hypot does beside infinity."""
    return math.nan if any(map(math.isnan, parts)) else math.hypot(*parts)


def trusted(norm: float) -> bool:
    """Whether a `plain_norm` can be relied on; 0, NaN and infinity never are."""
    return TRUSTED[0] <= norm <= TRUSTED[1]
