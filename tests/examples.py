"""How many examples a property test that costs much takes."""

from typing import Any

from hypothesis import settings


def max_examples(num: int, **options: Any) -> settings:
    """So many, and by a profile of fewer than Hypothesis' hundred as large a share."""
    return settings(max_examples=max(2, num * settings().max_examples // 100), **options)
