"""Percentile bootstrap of a mean over seeds (Efron and Tibshirani, An Introduction to the Bootstrap, 13)."""

from collections.abc import Sequence

import numpy as np

LEAST = 3  # of fewer values the resamples are too few to say anything
RESAMPLES = 10_000
LEVEL = 0.95


def interval(values: Sequence[float], *, seed: int = 0) -> tuple[float, float] | None:
    """Bounds of the mean at 95 %; None for fewer than three values.

    The draws depend on the seed and the number of values alone, so a table is the same each time it is made. Of few
    seeds such an interval is too narrow; it shows how far single seeds carry the mean, and is no test.
    """
    if len(values) < LEAST:
        return None
    drawn = np.random.default_rng(seed).integers(0, len(values), size=(RESAMPLES, len(values)))
    means = np.asarray(values, dtype=np.float64)[drawn].mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
