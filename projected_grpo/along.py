"""Vectors of many modules beside the bases of these: how far along, how long, and how much of one is elsewhere."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from projected_grpo import kernels
from projected_grpo.norms import lengths, plain_lengths
from projected_grpo.stacks import Stacks, end_to_end


class Along(NamedTuple):
    """Of j vectors x of all modules, in float64."""

    coefficients: Float[Tensor, "j n"]  # V x of each module, one after another
    lengths: Float[Tensor, " j"]
    off: Float[Tensor, ""]  # Σ |x - VᵀV x| over the entries of one of the vectors


def look_along(groups: Iterable[Stacks], V: Stacks, *, off_basis_of: int, careful: bool, home: torch.device) -> Along:
    """What there is to say of vectors and bases; all vectors are looked at together, so that each V is read once or
    twice for all of them.

    Arguments:
        groups: the j vectors of each group of modules, (m, r).
        V: of each group, (m, k, r), in the working dtype.
        off_basis_of: the place of the vector whose part off the basis is summed.
        careful: whether squares may overflow or vanish (see `norms`), which takes several times as long on a CPU.
        home: where the results are.
    """
    found = [_of_group(vectors, rows, off_basis_of, careful=careful) for vectors, rows in zip(groups, V, strict=True)]
    coefficients, norms, off = zip(*found, strict=True)
    c = end_to_end([each.transpose(0, 1).flatten(1) for each in coefficients], home)
    of_modules = end_to_end([each.T for each in norms], home)  # (j, modules)
    return Along(c, (lengths if careful else plain_lengths)(of_modules), end_to_end(off, home).sum())


def _of_group(
    vectors: Stacks, V: Float[Tensor, "m k r"], off_basis_of: int, *, careful: bool
) -> tuple[Float[Tensor, "m j k"], Float[Tensor, "m j"], Float[Tensor, " m"]]:
    """Of every module apart: the coefficients, the lengths, and the sum for the part off the basis."""
    if not careful and kernels.serve(V, vectors):
        return kernels.look_along(vectors, V, off_basis_of)
    X = torch.stack([*vectors], dim=1)  # (m, j, r)
    wide = X.to(V.dtype)
    c = torch.bmm(wide, V.mT)
    one = slice(off_basis_of, off_basis_of + 1)
    rest = torch.baddbmm(wide[:, one], c[:, one], V, alpha=-1).abs_().squeeze(1)
    return c, lengths(X) if careful else plain_lengths(X), rest.sum(-1, dtype=torch.float64 if careful else None)
