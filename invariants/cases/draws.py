"""Seeded draws that several kinds of cases share."""

import torch
from torch import Tensor


def orthonormal_rows(k: int, r: int, generator: torch.Generator) -> Tensor:
    """k Haar-random orthonormal rows in R^r; (k, r)."""
    q, upper = torch.linalg.qr(torch.randn(r, k, dtype=torch.float64, generator=generator))
    rows: Tensor = (q * upper.diagonal().sign()).T.contiguous()
    return rows
