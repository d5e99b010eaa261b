"""Bootstrap intervals over searches."""

import numpy as np
import pytest

from tests.benchmarks.search_quality.intervals import estimate_difference, estimate_mean


def test_the_interval_of_a_mean_has_the_width_that_theory_gives() -> None:
    draws_SB = np.random.default_rng(0).normal(3.0, 1.0, size=(400, 2))
    for column, interval in enumerate(estimate_mean(draws_SB)):
        assert interval.mean == pytest.approx(draws_SB[:, column].mean())
        assert interval.low < interval.mean < interval.high
        assert interval.high - interval.low == pytest.approx(2 * 1.96 / 20, rel=0.15)


def test_a_difference_is_positive_where_the_other_is_worse() -> None:
    rng = np.random.default_rng(1)
    ours_SB, worse_SB = rng.normal(1.0, 0.3, size=(100, 1)), rng.normal(2.0, 0.3, size=(100, 1))
    (interval,) = estimate_difference(ours_SB, worse_SB)
    assert 0.8 < interval.low < interval.mean < interval.high < 1.2
    (same,) = estimate_difference(ours_SB, rng.normal(1.0, 0.3, size=(100, 1)))
    assert same.low < 0 < same.high


def test_equal_searches_have_no_width() -> None:
    (interval,) = estimate_mean(np.full((10, 1), 0.5))
    assert (interval.mean, interval.low, interval.high) == (0.5, 0.5, 0.5)
