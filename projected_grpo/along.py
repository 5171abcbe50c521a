"""Vectors of many modules beside the bases of these: how far along, how long, and how much of one is elsewhere."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from projected_grpo import kernels
from projected_grpo.kernels import ACCUMULATED, DISPLACEMENT, GAUGES, QUARANTINE
from projected_grpo.norms import length_of_parts, lengths, plain_lengths
from projected_grpo.stacks import Stacks, end_to_end


class Along(NamedTuple):
    """Of j vectors x of all modules; d is the one at the place DISPLACEMENT, q that at QUARANTINE."""

    fired: float  # how many entries of V x are above 0, of that at ACCUMULATED
    along: float  # Σ |V d|
    off: float  # Σ |d - VᵀV d|
    product: float  # <V d, V q>
    squared: float  # ‖V q‖²
    hackward: tuple[float, ...]  # j times ‖relu(V x)‖
    lengths: tuple[float, ...]  # j times ‖x‖

    @classmethod
    def of(cls, parts: Sequence[Sequence[float]]) -> "Along":
        """What parts, as `look` returns them, are together."""
        columns = [*zip(*parts, strict=True)]
        fired, along, off, product, squared = (sum(column) for column in columns[:GAUGES])
        norms = [length_of_parts(column) for column in columns[GAUGES:]]
        j = len(norms) // 2
        return cls(fired, along, off, product, squared, hackward=tuple(norms[:j]), lengths=tuple(norms[j:]))


def look(
    groups: Iterable[tuple[Stacks, Tensor] | Tensor], *, careful: bool, home: torch.device
) -> list[Float[Tensor, " n"]]:
    """At j vectors of every module, those of a group together, so that V is read once or twice for all of them.

    Arguments:
        groups: vectors (m, r), j of them in the order of the places in `kernels`, and V (m, k, r) in the working dtype;
            or the numbers of a group that was looked at before.
        careful: whether squares may overflow or vanish (see `norms`), which takes several times as long on a CPU.

    Returns the 5 + 2j numbers of `Along`, in float64, in parts: one of each group that the compiled loops serve or
    have served, in the order of the groups, and one of all others at `home`.
    """
    parts, others = list[Tensor](), list[_Look]()
    for group in groups:  # one after another, for they take memory
        if isinstance(group, Tensor):
            parts.append(group)
            continue
        vectors, V = group
        if not careful and kernels.serve(V, vectors):
            parts.append(kernels.look_along(vectors, V))
        else:
            others.append(_look(vectors, V, careful=careful))
    return [*parts, _together(others, careful=careful, home=home)] if others else parts


class _Look(NamedTuple):
    """At j vectors of each module of one group."""

    coefficients: Tensor  # (m, j, k), in the working dtype
    lengths: Tensor  # (m, j), in that or in float64
    off: Tensor  # (m,), likewise: Σ |d - VᵀV d|


def _look(vectors: Stacks, V: Float[Tensor, "m k r"], *, careful: bool) -> _Look:
    X = torch.stack([*vectors], dim=1)  # (m, j, r)
    wide = X.to(V.dtype)
    c = torch.bmm(wide, V.mT)
    d = slice(DISPLACEMENT, DISPLACEMENT + 1)
    rest = torch.baddbmm(wide[:, d], c[:, d], V, alpha=-1).abs_()  # (m, 1, r)
    off = rest.sum((1, 2), dtype=torch.float64 if careful else None)
    return _Look(c, lengths(X) if careful else plain_lengths(X), off)


def _together(looks: Sequence[_Look], *, careful: bool, home: torch.device) -> Float[Tensor, " n"]:
    coefficients, norms, off = zip(*looks, strict=True)
    c = end_to_end([each.transpose(0, 1).flatten(1) for each in coefficients], home)  # (j, entries)
    of_modules = end_to_end([each.T for each in norms], home)  # (j, modules)
    d, q = c[DISPLACEMENT], c[QUARANTINE]
    fired = (c[ACCUMULATED] > 0).sum(dtype=c.dtype)
    gauges = torch.stack([fired, torch.linalg.vector_norm(d, ord=1), end_to_end(off, home).sum(), d @ q, q @ q])
    length = lengths if careful else plain_lengths
    return torch.cat([gauges, length(torch.relu(c)), length(of_modules)])
