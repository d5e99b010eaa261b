"""What happens when memory runs out."""

import pytest
import torch

from tests.trainables.held_gpu import hold_gpu
from trainables.errors import TrialFailed
from trainables.models.memory import get_gpu_gib, measure_peak_gib, retry_with_smaller_micro_batch


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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU: make test-gpu")
def test_what_another_process_holds_of_a_gpu_is_not_ours() -> None:
    alone_gib = get_gpu_gib()
    total_gib = torch.cuda.get_device_properties(0).total_memory / 2**30
    assert alone_gib == pytest.approx(total_gib, rel=0.05)
    uuid = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
    with hold_gpu(uuid, 6.0):
        assert get_gpu_gib() == pytest.approx(6.0, abs=0.1)
        own = torch.empty(2**30, dtype=torch.uint8, device="cuda")
        assert get_gpu_gib() == pytest.approx(6.0, abs=0.1)
    del own
