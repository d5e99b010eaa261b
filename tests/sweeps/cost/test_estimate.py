"""The estimate: what it is made of, and the band around it."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.cost.allocation import Allocation
from sweeps.cost.estimate import estimate, workload
from sweeps.cost.workload import EVALUATION_S, REPORT_S, segment_s
from tests.sweeps.invented_load import Steady, make_load
from tests.sweeps.invented_sweep import make_config
from trainables.packing.sizing.capacity import Capacity

SPEEDS = st.builds(
    Steady,
    fixed_s=st.floats(0.01, 1.0),
    trial_s=st.floats(0.0, 1.0),
    row_s=st.floats(0.0, 0.1),
)


@settings(max_examples=20, deadline=None)
@given(speed=SPEEDS, num_trials=st.integers(4, 30))
def test_twice_the_trials_take_longer_under_asha_too(speed: Steady, num_trials: int) -> None:
    few, more = make_load(num_trials=num_trials), make_load(num_trials=2 * num_trials)
    assert estimate(more, speed, num_seeds=8).wall_s > estimate(few, speed, num_seeds=8).wall_s


def test_the_band_holds_the_mean_and_grows_with_what_is_elapsed() -> None:
    found = estimate(make_load(num_trials=40), Steady(trial_s=0.1, row_s=0.01))
    assert found.wall_low_s < found.wall_s < found.wall_high_s
    later = estimate(make_load(num_trials=40), Steady(trial_s=0.1, row_s=0.01), elapsed_s=50.0)
    assert later.wall_s == pytest.approx(found.wall_s + 50)
    assert later.wall_low_s == pytest.approx(found.wall_low_s + 50)
    assert later.gpu_hours == pytest.approx(later.wall_s / 3600)


def test_an_estimate_is_the_same_every_time() -> None:
    assert estimate(make_load(), Steady()) == estimate(make_load(), Steady())


def test_workload_follows_the_config_and_the_hardware() -> None:
    capacity = Capacity(
        num_slots=4, max_rank=16, max_tokens=9, eval_tokens=9, is_dequantised=True,
        predicted_gib=1.0,
    )  # fmt: skip
    allocation = Allocation(
        concurrency=8,
        final_concurrency=7,
        num_cpus=32,
        num_gpus=2,
        slots_per_gpu=4,
        capacity=capacity,
    )
    config = make_config(
        num_trials=20, eval_rows=100, low_rung_eval_rows=30, finals=True, num_finalists=3,
        num_final_seeds=2,
    )  # fmt: skip
    load = workload(config, allocation, num_validation=60, num_test=70)
    assert load.eval_rows == (30, 30, 60) and load.rungs == (1, 3, 9)
    assert (load.num_packs, load.num_gpus, load.concurrency) == (2, 2, 8)
    assert load.num_final_runs == 3 * 2 + 1 and load.final_concurrency == 7
    assert (load.num_cpus, load.num_tested, load.test_rows) == (32, 3, 70)
    alone = dataclasses.replace(allocation, capacity=None)
    assert workload(config, alone, 60, 70).num_packs == 8
    assert (load.num_testing, workload(config, alone, 60, 70).num_testing) == (2, 1)
    assert segment_s(load, Steady(row_s=0.1), 3, 2) == pytest.approx(
        6 * 1.0 + 2 * 60 * 0.1 + 2 * REPORT_S + EVALUATION_S
    )
