"""What is told before the first trial, and set beside what came true."""

import time
from typing import Any

import pytest

from sweeps.cost import outlook
from sweeps.cost.allocation import Allocation
from sweeps.cost.forecast import Forecast
from sweeps.cost.outlook import Outlook
from sweeps.cost.workload import start_s
from tests.sweeps.cost.test_gpu_time import PACE
from tests.sweeps.invented_load import make_load
from tests.sweeps.invented_sweep import METRIC, SPACE, make_config
from trainables.errors import SweepAborted
from trainables.packing.service.ledger import Ledger
from trainables.packing.sizing.capacity import Capacity

CAPACITY = Capacity(
    num_slots=4, max_rank=16, max_tokens=9, eval_tokens=9, is_dequantised=True, predicted_gib=12.5
)
LANES = Allocation(
    concurrency=4, final_concurrency=4, num_cpus=8, num_gpus=1, slots_per_gpu=4, capacity=CAPACITY
)
LOAD = make_load()


def looked(pace: Any = PACE, events: Any = (), began_s: float | None = None, **config: Any) -> Any:
    forecast = Forecast(LOAD, METRIC)
    began_s = time.monotonic() if began_s is None else began_s
    return outlook.look_ahead(
        make_config(**config), LANES, LOAD, forecast, pace, events, [], began_s
    )


def test_the_pace_is_measured_with_every_rank_and_dropout_of_the_space() -> None:
    kinds = outlook.probed(make_config())
    pairs = {(one.lora_rank, one.lora_dropout) for one in kinds}
    assert pairs == {(r, d) for r in SPACE.lora_ranks for d in SPACE.lora_dropouts}
    assert [one.lora_rank for one in kinds[:3]] == list(SPACE.lora_ranks)
    assert outlook.probed(make_config(estimate=False)) == []


def test_the_estimate_tells_time_gpu_hours_pace_and_memory() -> None:
    lines = outlook.describe(looked(time_budget="2h"))
    assert lines[0].startswith("estimate: about ") and "GPU-hours" in lines[0]
    assert "a step takes 500 ms with 1 trial, 800 ms with 4 trials" in lines[1]
    assert lines[2] == "memory: 12.5 GiB a GPU at most, 4 slots"
    assert lines[3].startswith("budget: 2 h 00 min")


def test_without_a_pace_only_the_budget_is_told() -> None:
    found = looked(pace=None, time_budget="1h")
    assert found.predicted is None and outlook.predicted_fields(found) == {}
    assert outlook.compared(found, outlook.actual_fields(found, [])) == []
    assert [line.split(":")[0] for line in outlook.describe(found)] == ["budget"]
    assert outlook.describe(looked(pace=None)) == []


def test_what_has_passed_counts_in_the_estimate_and_against_the_budget() -> None:
    now_s = time.monotonic()
    fresh = looked(began_s=now_s, time_budget="10m")
    late = looked(began_s=now_s - 100, time_budget="10m")
    assert late.predicted.wall_s == pytest.approx(fresh.predicted.wall_s + 100, abs=1)
    assert late.budget.left_s == pytest.approx(500, abs=1)


def test_processes_have_a_head_start_unless_a_budget_is_to_be_checked_first() -> None:
    now_s = time.monotonic()
    free, checked = looked(began_s=now_s), looked(began_s=now_s, time_budget="2h")
    spared_s = checked.predicted.wall_s - free.predicted.wall_s
    assert spared_s == pytest.approx(min(start_s(LOAD, 4), PACE.load_s + PACE.probe_s), abs=0.5)


def test_a_budget_that_ends_the_sweep_early_is_what_is_predicted() -> None:
    free = looked()
    limited = looked(time_budget="60s")
    assert free.predicted.wall_s > 60 > limited.predicted.wall_low_s - 1
    assert limited.predicted.wall_s == limited.predicted.wall_high_s == 60.0


def test_a_budget_too_small_stops_a_new_sweep_and_lets_a_resumed_one_end() -> None:
    with pytest.raises(SweepAborted, match="the budget leaves 5 s"):
        looked(time_budget="5s")
    begun = [
        {"time": "2026-01-01T10:00:00+00:00", "kind": "sweep_started"},
        {"time": "2026-01-01T10:00:05+00:00", "kind": "trial_started"},
    ]
    found = looked(time_budget="5s", events=begun)
    assert found.budget.left_s <= 0


def test_predicted_and_actual_stand_side_by_side() -> None:
    found: Outlook = looked(began_s=time.monotonic() - 60.0)
    ledger = Ledger(
        device="cpu", started=0.0, seconds={}, trial_steps=0, real_tokens=0, computed_tokens=0,
        peak_gib=12.25,
    )  # fmt: skip
    actual = outlook.actual_fields(found, [ledger])
    assert actual["wall_s"] == pytest.approx(60.0, abs=1)
    (line,) = outlook.compared(found, actual)
    assert (
        line.startswith("time: 60 s, predicted ")
        and "peak 12.2 GiB of 12.5 planned at most" in line
    )
    fields = outlook.predicted_fields(found)
    assert fields["memory_gib"] == 12.5 and fields["pace"]["steps_s"] == {"1": 0.5, "4": 0.8}
