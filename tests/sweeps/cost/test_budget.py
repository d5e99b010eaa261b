"""Budgets: what they allow, whom they stop, and that finals and test still fit."""

import dataclasses
from typing import Any

import pytest

from sweeps.command_line.durations import parse_duration
from sweeps.cost.estimate import ROUND_S
from sweeps.cost.eta import RESERVE_MARGIN_FRAC, Eta, check_budget, find_limit_s, sum_spent_s
from sweeps.records import trials_csv
from tests.sweeps.invented_sweep import METRIC, make_config, make_history
from tests.sweeps.small_costs import Clock, make_model, make_throughput, make_trial, tell_report
from trainables.errors import SweepAborted
from trainables.packing.service.ledger import Ledger
from trainables.packing.sizing.throughput import Throughput

KNOWN = {"num_trials": 30, "max_steps": 30, "num_rungs": 2, "num_validation": 0, "num_test": 0}
MODEL = make_model(**KNOWN)
THROUGHPUT = make_throughput()
TEST_S = MODEL.predict_test_s(THROUGHPUT)
AFTER_S = (1 + RESERVE_MARGIN_FRAC) * TEST_S
"""What a budget keeps for the time after a search without finals."""


def make_eta(
    left_s: float, throughput: Throughput | None = None, **changes: Any
) -> tuple[Clock, Eta]:
    """An eta with so much left of its budget."""
    clock = Clock()
    eta = Eta(make_model(time_budget=f"{left_s}s", **KNOWN | changes), now_s=clock)
    eta.predict(throughput)
    return clock, eta


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
    assert sum_spent_s(events, [], num_gpus=2) == (130.0, 260.0)
    assert sum_spent_s(events, [ledger_of(50.0), ledger_of(70.0)], 2) == (130.0, 120.0)
    assert sum_spent_s([], [], 1) == (0.0, 0.0)


def test_the_tighter_budget_counts() -> None:
    events = [at(0, "sweep_started"), at(100, "report")]

    def limit_s(**budget: Any) -> float | None:
        return find_limit_s(make_model(num_packs=2, **budget), events, ())

    assert limit_s() is None
    assert limit_s(time_budget="10m") == 500.0
    assert limit_s(gpu_hours=1.0) == 1700.0
    assert limit_s(gpu_hours=1.0, time_budget="10m") == 500.0
    assert limit_s(gpu_hours=0.1, time_budget="10m") == 80.0


def test_trials_begin_as_long_as_they_can_report_before_what_follows_the_search() -> None:
    clock, eta = make_eta(100.0, THROUGHPUT)
    eta.on_trial_start(make_trial(0), 0)
    clock.now_s += 10.0
    tell_report(eta, 0, 10, seconds=10.0 + ROUND_S)
    first_s = 10 * 1.0 + ROUND_S
    clock.now_s = 1000 + 100 - AFTER_S - first_s - 0.1
    assert eta.allows_new_trial()
    clock.now_s += 0.2
    assert not eta.allows_new_trial()


def test_trials_that_come_too_late_are_stopped_and_others_are_not() -> None:
    clock, eta = make_eta(100.0, THROUGHPUT)
    eta.on_trial_start(make_trial(0), 0)
    clock.now_s += 75.0
    eta.on_trial_start(make_trial(1), 1)
    now_s, clock.now_s = clock.now_s, 2000.0
    assert eta.find_late_trials() == []  # nobody has reported: there would be no result
    clock.now_s = now_s
    clock.now_s += 5.0
    tell_report(eta, 0, 10, seconds=10.0)
    assert eta.find_late_trials() == [
        "t0000"
    ]  # 20 more steps, in time but for the test; t0001 has 5
    eta.on_trial_end(make_trial(0), "stopped", trials_csv.BUDGET_REASON)
    assert eta.find_late_trials() == []


def test_finals_get_the_time_that_they_are_predicted_to_take() -> None:
    _, eta = make_eta(1000.0, THROUGHPUT, finals=True, start_points=())
    after_s = eta.model.predict_finals_s(THROUGHPUT, 12)  # 3 seeds of 4 finalists
    after_s += eta.model.predict_test_s(THROUGHPUT)
    assert eta.find_search_deadline_s(4) == pytest.approx(2000 - 1.1 * after_s)
    assert (
        eta.find_search_deadline_s(1)
        > eta.find_search_deadline_s(2)
        > eta.find_search_deadline_s(4)
    )
    _, wide = make_eta(1000.0, THROUGHPUT, finals=True, start_points=(), final_concurrency=12)
    assert wide.find_search_deadline_s(4) > eta.find_search_deadline_s(4)


def test_the_first_trial_may_always_begin() -> None:
    clock, eta = make_eta(100.0, THROUGHPUT)
    clock.now_s += 500.0
    assert eta.allows_new_trial()
    eta.on_trial_start(make_trial(0), 0)
    assert not eta.allows_new_trial()


def test_nobody_is_late_in_the_finals() -> None:
    clock, eta = make_eta(100.0, THROUGHPUT)
    eta.on_trial_start(make_trial(0), 0)
    tell_report(eta, 0, 10, seconds=10.0)
    eta.on_trial_end(make_trial(0), "stopped", "")
    run = dataclasses.replace(make_history(0, None), trial_id="f0", final_of="t0000", seed=1)
    eta.on_finals_start([run])
    eta.on_trial_start(dataclasses.replace(make_trial(0), trial_id="f0"), 0)
    clock.now_s += 500.0
    assert eta.find_late_trials() == []


def test_without_a_throughput_half_of_the_budget_is_kept_for_the_finals() -> None:
    clock, eta = make_eta(100.0)
    eta.on_trial_start(make_trial(0), 0)
    assert eta.allows_new_trial() and eta.find_late_trials() == []
    clock.now_s += 50.5
    assert not eta.allows_new_trial()


def test_without_a_budget_every_trial_may_begin_and_none_is_late() -> None:
    clock = Clock()
    eta = Eta(MODEL, now_s=clock)
    for throughput in (None, THROUGHPUT):
        eta.predict(throughput)
        assert eta.budget_s is None
        eta.on_trial_start(make_trial(0), 0)
        clock.now_s += 1e6
        assert eta.allows_new_trial() and eta.find_late_trials() == []
    tell_report(eta, 0, 10, seconds=10.0)
    assert eta.allows_new_trial() and eta.find_late_trials() == []


def test_a_budget_without_room_for_one_trial_is_refused_with_one_that_has() -> None:
    needed_s = MODEL.predict_start_s(4) + 10 + ROUND_S + TEST_S
    model = make_model(time_budget="10s", **KNOWN)
    check_budget(model, THROUGHPUT, needed_s + 0.1)
    with pytest.raises(SweepAborted, match="the budget leaves 10 s, but one trial") as raised:
        check_budget(model, THROUGHPUT, 10.0)
    assert "--no-finals" not in raised.value.fix and "--gpu-hours" not in raised.value.fix
    assert enough_s(raised.value.fix) >= needed_s
    hours = make_model(gpu_hours=0.005, finals=True, **KNOWN)
    with pytest.raises(SweepAborted, match="finals and test") as raised:
        check_budget(hours, THROUGHPUT, 18.0)
    assert "--gpu-hours to" in raised.value.fix and "--no-finals" in raised.value.fix
    both = make_model(time_budget="10s", gpu_hours=0.005, **KNOWN)
    with pytest.raises(SweepAborted, match="the budget leaves 10 s") as raised:
        check_budget(both, THROUGHPUT, 10.0)
    assert enough_s(raised.value.fix) >= needed_s and "and --gpu-hours to" in raised.value.fix


def enough_s(fix: str) -> float:
    """The time budget that a remedy names."""
    (word,) = [word for word in fix.split() if word.endswith("s") and word[0].isdigit()]
    assert "--time-budget" in fix
    return parse_duration(word)


def predicted(
    throughput: Throughput | None = THROUGHPUT, events: Any = (), elapsed_s: float = 0, **flags: Any
) -> Any:
    """The estimate, and what the budget leaves."""
    histories = [make_history(0, None)] if events else []
    eta = Eta(make_model(**KNOWN | flags), histories)
    eta.predict(throughput, events, (), elapsed_s)
    return eta.estimate, eta.budget_s


def test_without_a_throughput_there_is_no_estimate_and_still_a_budget() -> None:
    assert predicted(None, time_budget="1h") == (None, 3600)
    assert predicted(None) == (None, None)


def test_what_has_passed_counts_in_the_estimate_and_against_the_budget() -> None:
    fresh, _ = predicted(time_budget="10m")
    late, budget_s = predicted(time_budget="10m", elapsed_s=100.0)
    assert late.wall_s == pytest.approx(fresh.wall_s + 100)
    assert budget_s == 500


def test_processes_have_a_head_start_unless_a_budget_is_to_be_checked_first() -> None:
    spared_s = predicted(time_budget="2h")[0].wall_s - predicted()[0].wall_s
    assert spared_s == pytest.approx(
        min(MODEL.predict_start_s(4), THROUGHPUT.load_s + THROUGHPUT.probe_s)
    )


def test_a_budget_that_ends_the_sweep_early_is_what_is_predicted() -> None:
    free, _ = predicted()
    limited, _ = predicted(time_budget="60s")
    assert free.wall_s > 60 > limited.wall_low_s - 1
    assert limited.wall_s == limited.wall_high_s == 60.0


def test_a_budget_too_small_stops_a_new_sweep_and_lets_a_resumed_one_end() -> None:
    with pytest.raises(SweepAborted, match="the budget leaves 5 s"):
        predicted(time_budget="5s")
    _, budget_s = predicted(
        time_budget="5s", events=[at(0, "sweep_started"), at(5, "trial_started")]
    )
    assert budget_s <= 0


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
