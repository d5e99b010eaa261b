"""What happens when memory runs out."""

import pytest
import torch

from trainables.errors import TrialFailed
from trainables.models.memory import measure_peak_gib, retry_with_smaller_micro_batch


@pytest.mark.parametrize(
    ("micro_batch_size", "largest", "tried"),
    [(8, 8, [8]), (8, 2, [8, 4, 2]), (15, 1, [15, 5, 1])],
)
def test_micro_batch_shrinks_until_it_fits(
    micro_batch_size: int, largest: int, tried: list[int]
) -> None:
    seen = []

    def attempt(size: int) -> None:
        seen.append(size)
        if size > largest:
            raise torch.OutOfMemoryError

    retry_with_smaller_micro_batch(attempt, micro_batch_size)
    assert seen == tried


def test_trial_fails_when_not_even_one_row_fits() -> None:
    def attempt(size: int) -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(TrialFailed, match="out of memory with micro-batch 1"):
        retry_with_smaller_micro_batch(attempt, 4)


def test_peak_counts_gib() -> None:
    assert 0.05 < measure_peak_gib() < 64
