"""What several kinds of cases share: seeded draws, and steps toward simpler cases."""

import torch
from torch import Tensor


def orthonormal_rows(k: int, r: int, generator: torch.Generator) -> Tensor:
    """k Haar-random orthonormal rows in R^r; (k, r)."""
    q, upper = torch.linalg.qr(torch.randn(r, k, dtype=torch.float64, generator=generator))
    rows: Tensor = (q * upper.diagonal().sign()).T.contiguous()
    return rows


def spread_evenly(total: int, wanted: int | None) -> set[int]:
    """Up to this many of the indices below `total`, the first and the last among them; all for None."""
    if wanted is None or wanted >= total:
        return set(range(total))
    return {round(i * (total - 1) / max(1, wanted - 1)) for i in range(wanted)}


def without_column(V: Tensor, at: int) -> Tensor:
    """V (k, r) without a coordinate: the rows made orthonormal again, and those left out that depend on others."""
    rows: list[Tensor] = []
    for row in torch.cat([V[:, :at], V[:, at + 1 :]], dim=1):
        if row.any():
            for _ in range(2):  # twice is enough (Parlett 1980, section 6-9)
                row = row - sum((float(row @ other) * other for other in rows), start=torch.zeros_like(row))
            if float(row.norm()) < 0.1:
                continue
            row = row / row.norm()
        rows.append(row)
    return torch.stack(rows) if rows else V.new_zeros(0, V.shape[1] - 1)


def numbers(x: Tensor) -> str:
    """A tensor as the list that Python would read."""
    return str(x.tolist())
