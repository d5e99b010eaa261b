"""Budgets: what they allow, whom they stop, and that finals and test still fit."""

import dataclasses
from typing import Any

import pytest

from sweeps.cost.budget import (
    RESERVE_MARGIN_FRAC,
    Budget,
    Spent,
    allowed_s,
    check_budget,
    predict,
    spent,
)
from sweeps.cost.estimate import REPORT_S, ROUND_S
from sweeps.cost.eta import Eta
from sweeps.durations import parse_duration
from sweeps.records import trials_csv
from tests.sweeps.invented_sweep import METRIC, make_config, make_history
from tests.sweeps.small_costs import Clock, make_model, make_throughput, make_trial, tell_report
from trainables.errors import SweepAborted
from trainables.packing.service.ledger import Ledger
from trainables.packing.sizing.throughput import Throughput

MODEL = make_model(num_trials=30, rungs=(10, 30), eval_rows=(0, 0), test_rows=0)
THROUGHPUT = make_throughput()
TEST_S = MODEL.test_s(THROUGHPUT)
AFTER_S = (1 + RESERVE_MARGIN_FRAC) * TEST_S
"""What a budget keeps for the time after a search without finals."""


def make_budget(
    left_s: float, throughput: Throughput | None = None, **changes: Any
) -> tuple[Clock, Eta, Budget]:
    clock = Clock()
    model = dataclasses.replace(MODEL, **changes)
    eta = Eta(model, now_s=clock)
    if throughput is not None:
        eta.set_throughput(throughput, left_s=77.0)
    config = make_config(finals=model.num_final_runs > 0)
    return clock, eta, Budget(config, eta, left_s, now_s=clock)


@pytest.mark.parametrize("hours", [0.0, -1.0, float("nan"), float("inf")])
def test_gpu_hours_are_above_zero(hours: float) -> None:
    with pytest.raises(ValueError, match=r"gpu_hours is .*above 0"):
        make_config(gpu_hours=hours)


def ledger_of(seconds: float) -> Ledger:
    return Ledger(
        device="cpu",
        started=0.0,
        seconds={"train": seconds},
        trial_steps=0,
        real_tokens=0,
        computed_tokens=0,
    )


def at(second: int, kind: str) -> dict[str, Any]:
    return {"time": f"2026-01-01T10:{second // 60:02d}:{second % 60:02d}.000+00:00", "kind": kind}


def test_earlier_processes_count_up_to_their_last_event_and_the_pauses_do_not() -> None:
    events = [
        at(0, "sweep_started"),
        at(100, "report"),
        at(1000, "sweep_resumed"),
        at(1030, "report"),
        at(3000, "sweep_resumed"),
    ]
    assert spent(events, [], num_gpus=2) == Spent(wall_s=130.0, gpu_s=260.0)
    assert spent(events, [ledger_of(50.0), ledger_of(70.0)], 2) == Spent(wall_s=130.0, gpu_s=120.0)
    assert spent([], [], 1) == Spent()


def test_the_tighter_budget_counts() -> None:
    used = Spent(wall_s=100.0, gpu_s=200.0)
    assert allowed_s(make_config(), used, 2) is None
    assert allowed_s(make_config(time_budget="10m"), used, 2) == 500.0
    assert allowed_s(make_config(gpu_hours=1.0), used, 2) == 1700.0
    assert allowed_s(make_config(gpu_hours=1.0, time_budget="10m"), used, 2) == 500.0
    assert allowed_s(make_config(gpu_hours=0.1, time_budget="10m"), used, 2) == 80.0


def test_trials_begin_as_long_as_they_can_report_before_what_follows_the_search() -> None:
    clock, eta, budget = make_budget(100.0, THROUGHPUT)
    eta.trial_started(make_trial(0), 0)
    clock.now_s += 10.0
    tell_report(eta, 0, 10, seconds=10.0 + REPORT_S + ROUND_S)
    first_s = 10 * 1.0 + REPORT_S + ROUND_S
    clock.now_s = 1000 + 100 - AFTER_S - first_s - 0.1
    assert budget.allows_new_trial
    clock.now_s += 0.2
    assert not budget.allows_new_trial


def test_trials_that_come_too_late_are_stopped_and_others_are_not() -> None:
    clock, eta, budget = make_budget(100.0, THROUGHPUT)
    eta.trial_started(make_trial(0), 0)
    clock.now_s += 75.0
    eta.trial_started(make_trial(1), 1)
    now_s, clock.now_s = clock.now_s, 2000.0
    assert budget.late_trials() == []  # nobody has reported: there would be no result
    clock.now_s = now_s
    clock.now_s += 5.0
    tell_report(eta, 0, 10, seconds=10.0)
    assert budget.late_trials() == ["t0000"]  # 20 more steps, in time but for the test; t0001 has 5
    eta.trial_ended(make_trial(0), "stopped", trials_csv.BUDGET_REASON)
    assert budget.late_trials() == []


def test_finals_get_the_time_that_they_are_predicted_to_take() -> None:
    _, eta, budget = make_budget(1000.0, THROUGHPUT, num_final_runs=8)
    after_s = eta.model.finals_s(THROUGHPUT, 12) + TEST_S  # 3 seeds of 4 finalists
    assert budget.search_ends_s(4) == pytest.approx(2000 - 1.1 * after_s)
    assert budget.search_ends_s(1) > budget.search_ends_s(2) > budget.search_ends_s(4)
    _, _, wide = make_budget(1000.0, THROUGHPUT, num_final_runs=8, final_concurrency=12)
    assert wide.search_ends_s(4) > budget.search_ends_s(4)


def test_the_first_trial_may_always_begin() -> None:
    clock, eta, budget = make_budget(100.0, THROUGHPUT)
    clock.now_s += 500.0
    assert budget.allows_new_trial
    eta.trial_started(make_trial(0), 0)
    assert not budget.allows_new_trial


def test_nobody_is_late_in_the_finals() -> None:
    clock, eta, budget = make_budget(100.0, THROUGHPUT)
    eta.trial_started(make_trial(0), 0)
    tell_report(eta, 0, 10, seconds=10.0)
    eta.trial_ended(make_trial(0), "stopped", "")
    run = dataclasses.replace(make_history(0, None), trial_id="f0", final_of="t0000", seed=1)
    eta.finals_started([run])
    clock.now_s += 500.0
    assert budget.late_trials() == []


def test_without_a_throughput_half_of_the_budget_is_kept_for_the_finals() -> None:
    clock, eta, budget = make_budget(100.0)
    eta.trial_started(make_trial(0), 0)
    assert budget.allows_new_trial and budget.late_trials() == []
    clock.now_s += 50.5
    assert not budget.allows_new_trial


def test_the_clock_is_looked_at_once_a_second() -> None:
    clock, _, budget = make_budget(100.0)
    looks = []
    for _ in range(30):
        looks.append(budget.is_check_due())
        clock.now_s += 0.125
    assert looks[0] and sum(looks) == 4


def test_a_budget_without_room_for_one_trial_is_refused_with_one_that_has() -> None:
    needed_s = MODEL.start_s(4) + 10 + 4 * REPORT_S + ROUND_S + TEST_S
    config = make_config(time_budget="10s")
    check_budget(config, MODEL, THROUGHPUT, needed_s + 0.1)
    with pytest.raises(SweepAborted, match="the budget leaves 10 s, but one trial") as raised:
        check_budget(config, MODEL, THROUGHPUT, 10.0)
    assert "--no-finals" not in raised.value.fix
    (word,) = [
        word for word in raised.value.fix.split() if word.endswith("s") and word[0].isdigit()
    ]
    assert "--time-budget" in raised.value.fix and parse_duration(word) >= needed_s
    with pytest.raises(SweepAborted, match="finals and test") as raised:
        check_budget(
            make_config(gpu_hours=0.005, finals=True),
            dataclasses.replace(MODEL, num_final_runs=8),
            THROUGHPUT,
            18.0,
        )
    assert "--gpu-hours to" in raised.value.fix and "--no-finals" in raised.value.fix


def predicted(
    throughput: Throughput | None = THROUGHPUT, events: Any = (), elapsed_s: float = 0, **flags: Any
) -> Any:
    return predict(make_config(**flags), Eta(MODEL), throughput, events, [], elapsed_s)


def test_without_a_throughput_there_is_no_estimate_and_still_a_budget() -> None:
    estimate, budget = predicted(None, time_budget="1h")
    assert estimate is None and budget.left_s == 3600
    assert predicted(None) == (None, None)


def test_what_has_passed_counts_in_the_estimate_and_against_the_budget() -> None:
    fresh, _ = predicted(time_budget="10m")
    late, budget = predicted(time_budget="10m", elapsed_s=100.0)
    assert late.wall_s == pytest.approx(fresh.wall_s + 100)
    assert budget.left_s == 500


def test_processes_have_a_head_start_unless_a_budget_is_to_be_checked_first() -> None:
    spared_s = predicted(time_budget="2h")[0].wall_s - predicted()[0].wall_s
    assert spared_s == pytest.approx(min(MODEL.start_s(4), THROUGHPUT.load_s + THROUGHPUT.probe_s))


def test_a_budget_that_ends_the_sweep_early_is_what_is_predicted() -> None:
    free, _ = predicted()
    limited, _ = predicted(time_budget="60s")
    assert free.wall_s > 60 > limited.wall_low_s - 1
    assert limited.wall_s == limited.wall_high_s == 60.0


def test_a_budget_too_small_stops_a_new_sweep_and_lets_a_resumed_one_end() -> None:
    with pytest.raises(SweepAborted, match="the budget leaves 5 s"):
        predicted(time_budget="5s")
    _, budget = predicted(time_budget="5s", events=[at(0, "sweep_started"), at(5, "trial_started")])
    assert budget.left_s <= 0


def test_a_search_that_its_budget_ended_has_a_best_trial_though_none_completed() -> None:
    histories = [
        make_history(0, "stopped", (1, 9.0), reason="place 2 of 3 at step 1"),
        make_history(1, "stopped", (1, 3.0), (3, 4.0), reason=trials_csv.BUDGET_REASON),
        make_history(2, "failed", (1, 30.0), (3, 40.0), reason="out of memory"),
    ]
    best = trials_csv.find_best(histories, METRIC)
    assert best is not None and best.trial_id == "t0001"
    without = [dataclasses.replace(one, reason="") for one in histories]
    assert trials_csv.find_best(without, METRIC) is None
    completed = make_history(3, "completed", (1, 1.0), (3, 1.0), (9, 1.0))
    best = trials_csv.find_best([*histories, completed], METRIC)
    assert best is not None and best.trial_id == "t0003"
