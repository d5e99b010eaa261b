"""The scale of a metric: how many digits its scores are shown with, and what is a small part."""

import math
from collections.abc import Iterable

from trainables.metrics.registry import METRICS, PER_LABEL

PERCENT = 100.0
SHOWN_SCALES = (1e-6, 1e6)
"""Outside of them scores are shown with an exponent."""


def find_scale(name: str, values: Iterable[float | None]) -> float:
    """The largest score that a metric gives, or, where that is not known, seems to give.

    Args:
        values: scores by it; their next power of ten is the scale of a metric of the user's own.
    """
    known = PERCENT if name.startswith(PER_LABEL) else None
    known = METRICS[name].scale if name in METRICS else known
    if known is not None:
        return known
    largest = max((abs(v) for v in values if v is not None and math.isfinite(v)), default=0.0)
    return 10.0 ** math.ceil(math.log10(largest)) if largest else 1.0


def format_score(name: str, value: float | None, beside: Iterable[float | None] = ()) -> str:
    """The score to a ten-thousandth of the metric's scale; empty if there is none.

    Args:
        beside: scores by the same metric that stand beside it and have as many digits.
    """
    if value is None:
        return ""
    scale = find_scale(name, (value, *beside))
    if not SHOWN_SCALES[0] <= scale <= SHOWN_SCALES[1]:
        return f"{value:.4g}"
    return f"{value:.{max(0, 4 - round(math.log10(scale)))}f}"
