"""A split in plain torch, in four settings, and what goes wrong with it: each broken one differs by a line."""

import torch
from torch import Tensor

from invariants import SplitSetting

Parts = tuple[Tensor, Tensor]  # kept (r,), removed (r,)

ONE_SIDED = SplitSetting(subtracts_stored=True)
NO_GATE = SplitSetting(gate="no_gate", subtracts_stored=True)
OVERSHOOT = SplitSetting(overshoot=1.5, subtracts_stored=True)
PRESERVING = SplitSetting(preserve_magnitude=True, subtracts_stored=True)


def one_sided(g: Tensor, V: Tensor) -> Parts:
    removed = V.T @ torch.relu(V @ g)
    return g - removed, removed


def no_gate(g: Tensor, V: Tensor) -> Parts:
    removed = V.T @ (V @ g)
    return g - removed, removed


def overshoot(g: Tensor, V: Tensor) -> Parts:
    removed = 1.5 * V.T @ torch.relu(V @ g)
    return g - removed, removed


def preserving(g: Tensor, V: Tensor) -> Parts:
    kept, removed = one_sided(g, V)
    return rescaled(kept, like=g), removed


def rescaled(kept: Tensor, *, like: Tensor) -> Tensor:
    """As long as `like`; in float64, where the squares of a float32 can't overflow."""
    factor = like.double().norm() / kept.double().norm()
    return kept * factor.to(kept.dtype) if kept.any() else kept


CORRECT = {ONE_SIDED: one_sided, NO_GATE: no_gate, OVERSHOOT: overshoot, PRESERVING: preserving}


def second_reads_the_changed_gradient(g: Tensor, V: Tensor) -> Parts:
    g -= V.T @ torch.relu(V @ g)
    return g, V.T @ torch.relu(V @ g)


def kept_takes_the_gradients_buffer(g: Tensor, V: Tensor) -> Parts:
    removed = V.T @ torch.relu(V @ g)
    return g.sub_(removed), removed


def overshoot_for_kept_alone(g: Tensor, V: Tensor) -> Parts:
    removed = V.T @ torch.relu(V @ g)
    return g - 1.5 * removed, removed


def axis_twice(g: Tensor, V: Tensor) -> Parts:
    return one_sided(g, torch.cat([V, V[:1]]))


def coarse_basis(g: Tensor, V: Tensor) -> Parts:
    return one_sided(g, V.bfloat16().to(V.dtype))


def shard_by_shard(g: Tensor, V: Tensor) -> Parts:
    shards = zip(g.tensor_split(2), V.tensor_split(2, dim=1), strict=True)
    kept, removed = zip(*(one_sided(*shard) for shard in shards), strict=True)
    return torch.cat(kept), torch.cat(removed)


def sign_flipped(g: Tensor, V: Tensor) -> Parts:
    return one_sided(g, -V)


def strongest_axis_only(g: Tensor, V: Tensor) -> Parts:
    c = torch.relu(V @ g)
    removed = V.T @ torch.where(c == c.amax(), c, 0) if len(c) else torch.zeros_like(g)
    return g - removed, removed


def threshold(g: Tensor, V: Tensor) -> Parts:
    c = V @ g
    removed = V.T @ torch.where(c > 1e-3, c, 0)
    return g - removed, removed


def sum_before_relu(g: Tensor, V: Tensor) -> Parts:
    removed = V.T @ torch.relu((V @ g).sum()).expand(len(V)) / max(1, len(V))
    return g - removed, removed


def basis_of_a_step_ago(g: Tensor, V: Tensor) -> Parts:
    removed = V.roll(1, dims=1).T @ torch.relu(V @ g)
    return g - removed, removed


def removed_after_rescaling(g: Tensor, V: Tensor) -> Parts:
    kept, _ = preserving(g, V)
    return kept, g - kept


def padded_with_a_unit_row(g: Tensor, V: Tensor) -> Parts:
    return one_sided(g, V if len(V) else torch.eye(1, len(g), dtype=V.dtype))


def rows_normalised(g: Tensor, V: Tensor) -> Parts:
    return one_sided(g, V / V.norm(dim=1, keepdim=True))


def norm_after_the_split(g: Tensor, V: Tensor) -> Parts:
    kept, removed = one_sided(g, V)
    return rescaled(kept, like=kept), removed


def divided_by_its_norm(g: Tensor, V: Tensor) -> Parts:
    kept, removed = one_sided(g, V)
    return kept * (g.norm() / kept.norm()), removed
