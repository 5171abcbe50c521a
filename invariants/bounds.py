"""A-priori rounding bounds, after Higham, Accuracy and Stability of Numerical Algorithms (2002), chapters 2 and 3.

u is the unit roundoff of the subject's dtype; gamma(n) = n u / (1 - n u) bounds the relative error of n rounded
operations in a row, in whatever order they are summed.
"""

import math

import torch
from torch import Tensor


def unit_roundoff(dtype: torch.dtype) -> float:
    """Half the distance from 1 to the next number."""
    return torch.finfo(dtype).eps / 2


def gamma(n: float, dtype: torch.dtype) -> float:
    """n u / (1 - n u); infinite (and so unable to judge) once n u reaches 1."""
    nu = n * unit_roundoff(dtype)
    return nu / (1 - nu) if nu < 1 else float("inf")


def underflow(operations: int, dtype: torch.dtype) -> float:
    """What `operations` results below the normal range can lose, also where the hardware flushes them to zero."""
    return operations * torch.finfo(dtype).tiny


def removed_error(g: Tensor, V: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    """Forward error of removed = scale V^T gate(V g), elementwise; g (r,), V (k, r) in float64 -> (r,).

    Two products of lengths r and k, a gate that is 1-Lipschitz, a scaling:
    scale gamma(r + k + 4) |V|^T (|V| |g|), as |gate(c)| <= |c| <= |V| |g|.
    """
    k, r = V.shape
    return scale * (relative_error(V.abs().T @ (V.abs() @ g.abs()), r + k + 4, dtype) + underflow_in_removed(V, dtype))


def relative_error(amplified: Tensor, operations: int, dtype: torch.dtype) -> Tensor:
    """gamma(operations) times the sizes that it acts on; nothing where those are zero, also if gamma is infinite."""
    factor = gamma(operations, dtype)
    return factor * amplified if math.isfinite(factor) else torch.where(amplified == 0, 0.0, factor)


def underflow_in_removed(V: Tensor, dtype: torch.dtype) -> Tensor:
    """What V^T gate(V g) can lose below the normal range, elementwise (r,).

    A coefficient is 2 r results (products and sums), the gate and a scaling; |V|^T spreads what they lose over the
    entries, each of which is 2 k results, a scaling and a cast more.
    """
    k, r = V.shape
    return V.abs().sum(dim=0) * underflow(2 * r + 2, dtype) + underflow(2 * k + 2, dtype)


def length(x: Tensor) -> float:
    """The Euclidean norm; it neither overflows nor underflows where its square would."""
    peak = float(x.abs().max()) if x.numel() else 0.0
    return peak * float((x / peak).norm()) if 0 < peak < math.inf else peak


def orthonormality_defect(V: Tensor) -> float:
    """||V V^T - diag(0/1)||_F in float64: what storing V in its dtype cost; the input's fault, not the subject's."""
    V = V.double()
    target = torch.diag((V.norm(dim=1) > 0.5).double())
    return float((V @ V.T - target).norm())


def trajectory_error(steps: int, width: float, moved: float, size: float, dtype: torch.dtype) -> float:
    """Rounding error after `steps` steps of two runs that are equal in exact arithmetic.

    Each step rounds what is fed (by `width` u of the move that it causes), the optimizer's buffers (at most 4
    operations on quantities no larger than the largest move of a step, `moved`) and the parameters (at most 4
    operations on quantities no larger than `size`). A stable linear optimizer carries an error in a buffer on with
    weights at most 1, so that it counts at most once in each later step:

        u steps ((4 steps + width) moved + 4 size)

    width is the length of the longest sum inside a step times the most that a split spreads an entry over others. The
    hypothesis of bounded weights is the theorem's own: it excludes optimizers that amplify what they are fed.
    """
    return unit_roundoff(dtype) * steps * ((4 * steps + width) * moved + 4 * size)
