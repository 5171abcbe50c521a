"""A split in plain torch, in four settings, and what goes wrong with it: each broken one differs by a line."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from invariants.contracts import SplitFunction, SplitSetting
from invariants.museum.subjects import exhibit
from invariants.subject import Subject

Parts = tuple[Tensor, Tensor]  # kept (r,), removed (r,)
NAN = "0/0 is NaN, which equals nothing"

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


CORRECT: dict[SplitSetting, SplitFunction] = {
    ONE_SIDED: one_sided, NO_GATE: no_gate, OVERSHOOT: overshoot, PRESERVING: preserving,
}  # fmt: skip


def broken_split(
    name: str,
    *,
    caught_by: str,
    setting: SplitSetting = ONE_SIDED,
    bug: int | None = None,
    also: Mapping[str, str] | None = None,
) -> Callable[[SplitFunction], SplitFunction]:
    """Puts a split on show that pretends to be of `setting`."""

    def show(broken: SplitFunction) -> SplitFunction:
        exhibit(name, lambda n: Subject(name=n, split={setting: broken}), caught_by=caught_by, bug=bug, also=also)
        return broken

    return show


@broken_split(
    "removed reads the gradient that kept has changed in place",
    caught_by="split.conservation",
    bug=12,
    also={
        "split.null_baseline": "of what was kept nothing is removed again, so removed is zero",
        "split.purity": "the gradient that was handed in is overwritten",
    },
)
def second_reads_the_changed_gradient(g: Tensor, V: Tensor) -> Parts:
    g -= V.T @ torch.relu(V @ g)
    return g, V.T @ torch.relu(V @ g)


@broken_split("kept is written into the gradient's buffer", caught_by="split.purity")
def kept_takes_the_gradients_buffer(g: Tensor, V: Tensor) -> Parts:
    removed = V.T @ torch.relu(V @ g)
    return g.sub_(removed), removed


@broken_split(
    "overshoot for kept and not for removed",
    caught_by="split.conservation",
    setting=OVERSHOOT,
    also={"split.null_baseline": "removed lacks its overshoot"},
)
def overshoot_for_kept_alone(g: Tensor, V: Tensor) -> Parts:
    removed = V.T @ torch.relu(V @ g)
    return g - 1.5 * removed, removed


@broken_split("an axis is in the basis twice", caught_by="split.pythagoras", bug=7)
def axis_twice(g: Tensor, V: Tensor) -> Parts:
    return one_sided(g, torch.cat([V, V[:1]]))


@broken_split(
    "basis stored in bfloat16",
    caught_by="split.pythagoras",
    also={
        "split.idempotence": "rounded rows are no unit vectors, so a pass leaves a part",
        "split.span": "rounded rows span another space",
    },
)
def coarse_basis(g: Tensor, V: Tensor) -> Parts:
    return one_sided(g, V.bfloat16().to(V.dtype))


@broken_split(
    "coefficients of a shard are not reduced",
    caught_by="split.pythagoras",
    bug=5,
    also={
        "split.idempotence": "coefficients of different sign in two shards leave a part of their sum",
        "split.span": "two shards scale one axis by different coefficients",
    },
)
def shard_by_shard(g: Tensor, V: Tensor) -> Parts:
    shards = zip(g.tensor_split(2), V.tensor_split(2, dim=1), strict=True)
    kept, removed = zip(*(one_sided(*shard) for shard in shards), strict=True)
    return torch.cat(kept), torch.cat(removed)


@broken_split("sign of V flipped", caught_by="split.one_sided", bug=8)
def sign_flipped(g: Tensor, V: Tensor) -> Parts:
    return one_sided(g, -V)


@broken_split("only the strongest axis is removed", caught_by="split.idempotence")
def strongest_axis_only(g: Tensor, V: Tensor) -> Parts:
    c = torch.relu(V @ g)
    removed = V.T @ torch.where(c == c.amax(), c, 0) if len(c) else torch.zeros_like(g)
    return g - removed, removed


@broken_split("absolute threshold in the gate", caught_by="split.homogeneity")
def threshold(g: Tensor, V: Tensor) -> Parts:
    c = V @ g
    removed = V.T @ torch.where(c > 1e-3, c, 0)
    return g - removed, removed


@broken_split(
    "signed sum over the axes before relu",
    caught_by="split.null_baseline",
    also={"split.zero_rows": "the sum is divided by the number of rows, of which zero rows are some"},
)
def sum_before_relu(g: Tensor, V: Tensor) -> Parts:
    removed = V.T @ torch.relu((V @ g).sum()).expand(len(V)) / max(1, len(V))
    return g - removed, removed


@broken_split(
    "expanded with the basis of a step ago",
    caught_by="split.span",
    also={"split.idempotence": "what is subtracted is not what was measured, and is found again"},
)
def basis_of_a_step_ago(g: Tensor, V: Tensor) -> Parts:
    removed = V.roll(1, dims=1).T @ torch.relu(V @ g)
    return g - removed, removed


@broken_split(
    "removed is g minus the rescaled kept",
    caught_by="split.span",
    setting=PRESERVING,
    also={
        "split.empty_basis": "rescaling rounds, so that something is removed without a basis",
        "split.zero_rows": "where only rounding is kept, that is rescaled and subtracted, and zero rows change it",
    },
)
def removed_after_rescaling(g: Tensor, V: Tensor) -> Parts:
    kept, _ = preserving(g, V)
    return kept, g - kept


@broken_split("empty basis padded with a unit row", caught_by="split.empty_basis")
def padded_with_a_unit_row(g: Tensor, V: Tensor) -> Parts:
    return one_sided(g, V if len(V) else torch.eye(1, len(g), dtype=V.dtype))


@broken_split(
    "rows of V normalised on the way in",
    caught_by="split.zero_rows",
    also={"split.conservation": NAN, "split.homogeneity": NAN, "split.span": NAN, "split.purity": NAN},
)
def rows_normalised(g: Tensor, V: Tensor) -> Parts:
    return one_sided(g, V / V.norm(dim=1, keepdim=True))


@broken_split("norm taken after the split", caught_by="split.preserves_magnitude", setting=PRESERVING)
def norm_after_the_split(g: Tensor, V: Tensor) -> Parts:
    kept, removed = one_sided(g, V)
    return rescaled(kept, like=kept), removed


@broken_split("rescaled by a division by zero", caught_by="split.zero_gradient", setting=PRESERVING)
def divided_by_its_norm(g: Tensor, V: Tensor) -> Parts:
    kept, removed = one_sided(g, V)
    return kept * (g.norm() / kept.norm()), removed


broken_split("rectified under the name of no_gate", caught_by="split.additivity", setting=NO_GATE)(one_sided)
broken_split(
    "overshoot 1 is forced",
    caught_by="split.matches_reference",
    setting=OVERSHOOT,
    also={"split.null_baseline": "removed lacks its overshoot"},
)(one_sided)
broken_split("preserve_magnitude is forced off", caught_by="split.preserves_magnitude", setting=PRESERVING)(one_sided)
