"""How much a benchmark's two sides differ, over seeds and rows that both have."""

from collections.abc import Sequence

import numpy as np

from sweeps.finals.bootstrap import Comparison, RunMetric, compare, make_mean_metric


def compare_with_zero(
    differences: Sequence[RunMetric], num_rows: int
) -> tuple[Comparison, tuple[float, float]]:
    """Each seed's difference beside none at all, and the 95% interval of their mean."""
    none = make_mean_metric(np.zeros(num_rows))
    comparison = compare([differences, [none]], "max", num_rows, seed=0)
    assert comparison.interval is not None
    low, high = comparison.interval
    return comparison, (low, high) if comparison.best == 0 else (-high, -low)
