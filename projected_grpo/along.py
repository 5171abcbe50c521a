"""Vectors of many modules beside the bases of these: how far along, how long, and how much of one is elsewhere."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from projected_grpo import kernels
from projected_grpo.kernels import Look
from projected_grpo.norms import lengths, plain_lengths
from projected_grpo.stacks import Stacks, end_to_end


class Along(NamedTuple):
    """Of j vectors x of all modules, in float64."""

    coefficients: Float[Tensor, "j n"]  # V x of each module, one after another
    lengths: Float[Tensor, " j"]
    off: Float[Tensor, ""]  # Σ |x - VᵀV x| over the entries of one of the vectors


def look(vectors: Stacks, V: Float[Tensor, "m k r"], *, off_basis_of: int, careful: bool) -> Look:
    """At vectors of every module of a group, all together, so that V is read once or twice for all of them.

    Arguments:
        vectors: j of them, (m, r) each.
        V: in the working dtype.
        off_basis_of: the place of the vector whose part off the basis is summed.
        careful: whether squares may overflow or vanish (see `norms`), which takes several times as long on a CPU.
    """
    if not careful and kernels.serve(V, vectors):
        return kernels.look_along(vectors, V, off_basis_of)
    X = torch.stack([*vectors], dim=1)  # (m, j, r)
    wide = X.to(V.dtype)
    c = torch.bmm(wide, V.mT)
    one = slice(off_basis_of, off_basis_of + 1)
    rest = torch.baddbmm(wide[:, one], c[:, one], V, alpha=-1).abs_().squeeze(1)
    return Look(c, lengths(X) if careful else plain_lengths(X), rest.sum(-1, dtype=torch.float64 if careful else None))


def together(looks: Iterable[Look], *, careful: bool, home: torch.device) -> Along:
    """Of all modules of all groups; the results are at `home`, and `careful` is as it was for every look."""
    coefficients, norms, off = zip(*looks, strict=True)
    c = end_to_end([each.transpose(0, 1).flatten(1) for each in coefficients], home)
    of_modules = end_to_end([each.T for each in norms], home)  # (j, modules)
    return Along(c, (lengths if careful else plain_lengths)(of_modules), end_to_end(off, home).sum())
