"""Means over searches with bootstrap intervals, and how far two methods lie apart."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NUM_RESAMPLES = 2000
COVERAGE = 0.95


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean, and the bounds between which 95% of the resampled means lie."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"


def estimate_mean(values_SB: Floats) -> list[Interval]:
    """The mean over searches S at each budget B, resampled over whole searches."""
    return _make_intervals(_resample_means(values_SB, seed=0), values_SB.mean(axis=0))


def estimate_difference(ours_SB: Floats, others_SB: Floats) -> list[Interval]:
    """How much larger the other mean is at each budget; the searches are independent."""
    means_RB = _resample_means(others_SB, seed=1) - _resample_means(ours_SB, seed=0)
    return _make_intervals(means_RB, others_SB.mean(axis=0) - ours_SB.mean(axis=0))


def _resample_means(values_SB: Floats, seed: int) -> Floats:
    num_searches = len(values_SB)
    draws = np.random.default_rng(seed).integers(num_searches, size=(NUM_RESAMPLES, num_searches))
    means: Floats = np.stack([values_SB[draw].mean(axis=0) for draw in draws])
    return means


def _make_intervals(resampled_RB: Floats, means_B: Floats) -> list[Interval]:
    tail = 100 * (1 - COVERAGE) / 2
    bounds_2B = np.percentile(resampled_RB, [tail, 100 - tail], axis=0)
    return [
        Interval(mean=float(mean), low=float(low), high=float(high))
        for mean, low, high in zip(means_B, *bounds_2B, strict=True)
    ]
