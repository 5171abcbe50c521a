"""Post-hoc projection: train as always, then split once what was learned. The baseline of every routing claim.

    T = deployed + quarantine - start         deployed ← start - kept(-T)         quarantine ← -removed(-T)

With a fixed basis, routing in displacement space trains exactly as vanilla does and ends exactly here; so whatever
routing is claimed to do beyond this, it has to do against this.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from projected_grpo.basis import Basis
from projected_grpo.binding import check_fit, fingerprints_of, vectors_of
from projected_grpo.errors import NonFiniteVectorError, ShapeMismatchError, UnmatchedNamesError
from projected_grpo.split import DEFAULT_RULE, GroupedSplit, SplitRule
from projected_grpo.vectors import VectorPair, VectorSource


@torch.no_grad()
def project_out(
    vectors: VectorSource,
    basis: Basis,
    *,
    start: Mapping[str, Tensor] | None = None,
    rule: SplitRule = DEFAULT_RULE,
) -> dict[str, Tensor]:
    """Splits the learned displacement along the basis, once, in place.

    Arguments:
        vectors: module → its two vectors (r,), or an adapted model. A quarantine of None counts as zero.
        basis: the hack basis; modules that it doesn't name stay as they are.
        start: module → the vector (r,) that training started from; zeros if None, as adapters start.
        rule: how the component along V is treated; a descent step moves against the gradient, so -T is split.

    Returns:
        module → the hack-ward displacement (r,) that was taken out of the deployed vector.

    Raises:
        BindingError or StaleBasisError where basis and vectors don't fit; UnmatchedNamesError or ShapeMismatchError
        where start and vectors don't; NonFiniteVectorError for a displacement with NaN or infinity, of which the split
        would spread one entry over all; SettingError for the gate predictable, which one split gives no past to look
        at. Nothing is changed then.
    """
    pairs = vectors_of(vectors)
    check_fit(pairs, basis, fingerprints_of(vectors))
    if start is None:
        start = {name: torch.zeros_like(pairs[name].deployed) for name in basis}
    for name in basis:
        if name not in start:
            raise UnmatchedNamesError(f"{name} is in the basis but not in start; pass the vector that it started from.")
        if start[name].shape != pairs[name].deployed.shape:
            raise ShapeMismatchError(
                f"{name}: start is {tuple(start[name].shape)} and the deployed vector "
                f"{tuple(pairs[name].deployed.shape)}; pass the vector that it started from."
            )
    displacement = {name: combined(pairs[name]) - start[name] for name in basis}
    for name, T in displacement.items():
        bad = int((~torch.isfinite(T)).sum())
        if bad:
            raise NonFiniteVectorError(
                f"{name}: {bad} of {T.numel()} entries of what was learned are NaN or infinite; nothing was changed, "
                "so load vectors from before they were."
            )
    parts = GroupedSplit(basis, rule)({name: -T for name, T in displacement.items()})
    for name in basis:
        deployed, quarantine = pairs[name]
        deployed.copy_(start[name] - parts.kept[name])
        if quarantine is not None:
            quarantine.copy_(-parts.removed[name])
    return {name: -removed for name, removed in parts.removed.items()}


def combined(pair: VectorPair) -> Tensor:
    """What the training model runs at, deployed + quarantine, (r,)."""
    return pair.deployed.detach() if pair.quarantine is None else (pair.deployed + pair.quarantine).detach()
