"""Learning rates, against transformers'."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import get_scheduler

from tests.examples import max_examples
from trainables.config import Schedule
from trainables.packing.compute.slot import compute_learning_rate


@max_examples(40)
@given(
    schedule=st.sampled_from(["linear", "cosine"]),
    max_steps=st.integers(1, 60),
    warmup=st.integers(0, 59),
)
def test_rates_are_those_of_transformers(schedule: Schedule, max_steps: int, warmup: int) -> None:
    warmup = min(warmup, max_steps - 1)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
    scheduler = get_scheduler(schedule, optimizer, warmup, max_steps)
    for step in range(1, max_steps + 1):
        expected = scheduler.get_last_lr()[0]
        assert compute_learning_rate(3e-4, schedule, step, warmup, max_steps) == pytest.approx(
            expected, rel=1e-12, abs=1e-20
        )
        optimizer.step()
        scheduler.step()
