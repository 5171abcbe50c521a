"""The hack basis V from contrastive pairs (prompt, hack completion, clean completion).

With g_x the gradient of the mean negative log-likelihood of one completion x alone, each pair gives a row
d = g_hack - g_clean. A descent step along d makes the hack likelier and the clean completion less likely, so
with V oriented along the rows, c = V g > 0 says that a descent step along g moves hack-ward.

V is the top k right singular vectors of the rows, as in representation reading (Zou et al. 2023,
arXiv:2310.01405, section 3.1), here of gradients.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn


def isolated_gradient(loss: Callable[[], Tensor], vectors: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The gradient of one completion's loss, and of nothing before it; module name -> (r,)."""
    names, parameters = list(vectors), list(vectors.values())
    return dict(zip(names, torch.autograd.grad(loss(), parameters), strict=True))


def oriented(V: Tensor, D: Tensor) -> Tensor:
    """Each row of V signed by majority vote of the pairs; V (k, r), D (pairs, r) -> (k, r).

    A vote, so that one outlier pair cannot flip an axis. A tie is decided by the sign of the summed
    projection, and if that is zero too, the axis keeps the sign that it has.
    """
    projection = D @ V.T  # (pairs, k)
    votes = projection.sign().sum(dim=0)  # (k,)
    sign = torch.where(votes == 0, projection.sum(dim=0).sign(), votes.sign())
    return V * torch.where(sign == 0, torch.ones_like(sign), sign)[:, None]


def extract(
    differences: Mapping[str, Tensor], k: int, *, relative_floor: float = 0.0, global_floor: float = 0.0
) -> dict[str, Tensor]:
    """The basis of each module from its rows of pair differences; (pairs, r) -> (at most k, r).

    An axis is kept if its singular value is above rounding and reaches relative_floor times the module's largest
    and global_floor times the largest of all modules; a module that is all noise gets no row (0, r).
    """
    decomposed = {name: torch.linalg.svd(D, full_matrices=False) for name, D in differences.items()}
    largest = max(float(S[0]) for _, S, _ in decomposed.values())
    basis = {}
    for name, (_, S, Vh) in decomposed.items():
        floor = max(relative_floor * float(S[0]), global_floor * largest)
        rounding = max(differences[name].shape) * torch.finfo(S.dtype).eps * S[0]  # as in numerical rank
        axes = Vh[:k][(S[:k] > rounding) & (S[:k] >= floor)]  # (k', r)
        basis[name] = oriented(axes, differences[name])
    return basis


def basis_from_pairs(
    pair_losses: Sequence[tuple[Callable[[], Tensor], Callable[[], Tensor]]],
    vectors: Mapping[str, nn.Parameter],
    k: int,
    *,
    relative_floor: float = 0.0,
    global_floor: float = 0.0,
) -> dict[str, Tensor]:
    """Gradients of (hack loss, clean loss) pairs, their differences, and the basis; module name -> (k', r)."""
    rows: dict[str, list[Tensor]] = {name: [] for name in vectors}
    for hack_loss, clean_loss in pair_losses:
        hack, clean = isolated_gradient(hack_loss, vectors), isolated_gradient(clean_loss, vectors)
        for name in vectors:
            rows[name].append(hack[name] - clean[name])
    differences = {name: torch.stack(row) for name, row in rows.items()}  # (pairs, r)
    return extract(differences, k, relative_floor=relative_floor, global_floor=global_floor)
