"""Where preserve_magnitude can be judged: norms in range, and a direction of what is kept beyond rounding."""

import torch
from torch import Tensor

from invariants.bounds import gamma, length
from invariants.trials import SplitTrial


def squares_stay_in_range(x: Tensor, dtype: torch.dtype) -> bool:
    """Whether norms of x can be computed by squaring without overflow and without losing digits to underflow."""
    info = torch.finfo(accumulated_in(dtype))
    largest = float(x.abs().max()) if x.numel() else 0.0
    square = largest * largest  # infinite, where ** 2 would raise
    return largest == 0.0 or (info.tiny / info.eps**2 < square and square * x.numel() < info.max * info.eps)


def accumulated_in(dtype: torch.dtype) -> torch.dtype:
    """What norms are accumulated in: float32 for the half types, as torch does it."""
    return dtype if dtype in (torch.float64, torch.float32) else torch.float32


def has_a_direction(trial: SplitTrial, factor: float = 1.0) -> bool:
    """Whether a rescaling of what is kept, of `factor` times the gradient, is more than rounding and in range."""
    unscaled = trial.g - trial.exact
    in_range = all(squares_stay_in_range(factor * x, trial.dtype) for x in (trial.g, unscaled))
    return in_range and length(unscaled) > 4 * length(trial.kept_bound)


def squares_are_normal(trial: SplitTrial, factor: float) -> bool:
    """Whether norms of `factor` times the gradient, and of what is kept, have only normal terms: they scale exactly."""
    entries = factor * torch.cat([trial.g, trial.kept]).abs()
    smallest = float(entries[entries > 0].min()) if bool(entries.any()) else 1.0
    return smallest > torch.finfo(trial.dtype).tiny and smallest**2 > torch.finfo(accumulated_in(trial.dtype)).tiny


def rescaling_error(trial: SplitTrial) -> float | None:
    """Error of |g| kept / |kept| in norm; None where kept is too short to have a direction in this dtype.

    With e the error of kept before rescaling, the direction is off by at most 2 e / (|kept| - e).
    """
    if not has_a_direction(trial):
        return None
    kept, e = length(trial.g - trial.exact), length(trial.kept_bound)
    norms = gamma(2 * trial.g.numel() + 8, trial.dtype) + gamma(2 * trial.g.numel() + 8, torch.float64)
    return trial.given.norm * (2 * e / (kept - e) + norms)
