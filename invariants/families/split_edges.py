"""split.*: the edges: no basis, rows of zeros, nothing to split, lengths, and what is left behind."""

import torch

from invariants.bounds import gamma, length, removed_error
from invariants.cases import orthonormal_rows
from invariants.hypotheses import of_rule, rescales
from invariants.measurement import Measurement, elementwise, same_bits, worst
from invariants.registry import invariant
from invariants.rescaling import rescaling_error, squares_stay_in_range
from invariants.trials import SplitTrial


@invariant("split.empty_basis", theorem="T1", capability="split", events=("gradient is not zero",))
def empty_basis(trial: SplitTrial) -> Measurement:
    """With k = 0 everything is kept and nothing removed.

    Fails when: a module without hack directions is touched by the split.

    Likely cause: an empty basis is padded with something other than zero rows, or divided by its norm.
    """
    kept, removed = trial.split(trial.g, trial.V[:0])
    slack = 0.0
    if trial.setting.preserve_magnitude:  # kept |g| / |kept| may round
        if not squares_stay_in_range(trial.g, trial.dtype):
            return same_bits(removed, torch.zeros_like(removed), trial.case.label)
        slack = gamma(2 * trial.g.numel() + 8, trial.dtype)
    seen = {"gradient is not zero": bool(trial.g.any())}
    return worst([
        same_bits(removed, torch.zeros_like(removed), trial.case.label),
        elementwise(kept - trial.g, slack * trial.g.abs(), trial.case.label, occurred=seen),
    ])  # fmt: skip


@invariant("split.zero_rows", theorem="T1", capability="split", events=("something removed",))
def zero_rows(trial: SplitTrial) -> Measurement | None:
    """Zero rows in V change nothing: they are how modules of unequal k share one tensor.

    Fails when: padding changes what is removed.

    Likely cause: rows are normalised on the way in (0/0), or counted in the share that is removed.
    """
    padded = torch.cat([trial.V, torch.zeros(2, trial.g.numel(), dtype=torch.float64)])
    _, removed = trial.split(trial.g, padded)
    own = removed_error(trial.g, padded, trial.scale, trial.dtype) + trial.subtraction_error(trial.g)
    bound = trial.removed_bound + own
    return elementwise(
        removed - trial.removed, bound, trial.case.label, scale=trial.removed,
        occurred={"something removed": bool(trial.removed.any())},
    )  # fmt: skip


@invariant(
    "split.preserves_magnitude",
    theorem="T1",
    capability="split",
    applies=of_rule(rescales),
    events=("something removed",),
)
def preserves_magnitude(trial: SplitTrial) -> Measurement | None:
    """What is kept is as long as the gradient was, wherever anything is kept.

    Fails when: the rescaling is missing, or uses another norm.

    Likely cause: the norm is taken after the split, or over all modules together.
    """
    if rescaling_error(trial) is None:
        return None
    residual = torch.tensor(length(trial.kept) - trial.given.norm, dtype=torch.float64)
    bound = gamma(2 * trial.g.numel() + 8, trial.dtype) * trial.given.norm
    return elementwise(
        residual,
        bound,
        trial.case.label,
        scale=trial.given.norm,
        occurred={"something removed": bool(trial.removed.any())},
    )


@invariant("split.zero_gradient", theorem="T5", capability="split", per="setting", events=("zero gradient split",))
def zero_gradient(trial: SplitTrial) -> Measurement:
    """A zero gradient is split into zeros.

    Fails when: zero in gives NaN or anything else out.

    Likely cause: a division by the gradient's or the kept part's norm.
    """
    V = orthonormal_rows(3, 8, torch.Generator().manual_seed(11))
    zero = torch.zeros(8, dtype=torch.float64)
    parts = trial.split(zero, V)
    return worst(
        (same_bits(part, zero, "zero gradient, r=8, k=3") for part in parts), occurred={"zero gradient split": 1}
    )


@invariant("split.purity", theorem="T1", capability="split", events=("something removed",))
def purity(trial: SplitTrial) -> Measurement | None:
    """The split leaves its arguments as they were, and gives the same bits when it is called again.

    Fails when: g or V is overwritten, or the result depends on an earlier call.

    Likely cause: an in-place operation on a view of the gradient, or a buffer that is handed out twice.
    """
    if trial.setting.preserve_magnitude and not squares_stay_in_range(trial.g, trial.dtype):
        return None  # a norm may overflow there, and NaN twice is not the same bits
    # Copies: in float64 the trial's own tensors, and with them the tape's, would be handed out otherwise.
    g, V = trial.g.to(trial.dtype, copy=True), trial.V.to(trial.dtype, copy=True)
    first = trial.raw(g, V)
    kept = [part.clone() for part in first]
    trial.raw(-g.roll(1), V)  # what was handed out before must survive a call in between
    later = [part.clone() for part in first]
    again = trial.raw(g, V)
    pairs = [(g, trial.g), (V, trial.V), *zip(later, kept, strict=True), *zip(again, kept, strict=True)]
    measured = (same_bits(a.double(), b.double(), trial.case.label) for a, b in pairs)
    return worst(measured, occurred={"something removed": bool(kept[1].any())})
