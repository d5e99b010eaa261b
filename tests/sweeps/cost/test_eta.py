"""The time left of a running sweep: from where it stands, at the rate that it shows."""

import dataclasses
from typing import Any

import pytest

from sweeps.cost.estimate import ROUND_S
from sweeps.cost.eta import RESERVE_MARGIN_FRAC, SCALES, Eta
from tests.sweeps.invented_sweep import make_history
from tests.sweeps.small_costs import Clock, make_model, make_throughput, make_trial, tell_report

KNOWN = {"num_trials": 3, "max_steps": 9, "num_rungs": 2, "num_validation": 0, "num_test": 0}
MODEL = make_model(concurrency=3, **KNOWN)
PROMOTED = 1.4 / 3
TRIAL_STEPS = 3 + PROMOTED * 6
"""That a trial is expected to make."""
THROUGHPUT = make_throughput(step_fixed_s=2.0)
TEST_S = MODEL.predict_test_s(THROUGHPUT)


def make_eta(**changes: Any) -> tuple[Clock, Eta]:
    """An eta whose throughput was measured."""
    clock = Clock()
    eta = Eta(make_model(concurrency=3, **KNOWN | changes), now_s=clock)
    eta.predict(THROUGHPUT)
    return clock, eta


def test_nothing_is_known_until_a_trial_reports_and_then_its_rate_tells_the_rest() -> None:
    clock = Clock()
    eta = Eta(make_model(concurrency=1, **KNOWN), now_s=clock)
    eta.predict(None)
    eta.on_trial_start(make_trial(0), 0)
    assert eta.estimate is None and eta.compute_left_s() is None and eta.find_late_trials() == []
    clock.now_s += 30.0
    tell_report(eta, 0, 3, seconds=30.0)
    model, unit = eta.model, make_throughput()  # a step is a second of it
    search_s = 30 / (3 + ROUND_S) * model.predict_search_s(unit) / (3 * TRIAL_STEPS)
    assert eta.compute_left_s() == pytest.approx(
        (6 + 2 * TRIAL_STEPS) * search_s + model.predict_test_s(unit)
    )
    clock.now_s += 20.0
    assert eta.find_late_trials() == []  # without a budget
    eta.on_trial_end(make_trial(0), "stopped", "place 2 of 2")
    assert eta.compute_left_s() == pytest.approx(
        2 * TRIAL_STEPS * search_s + model.predict_test_s(unit)
    )


def test_what_was_predicted_is_told_until_a_trial_reports() -> None:
    clock, eta = make_eta()
    assert eta.estimate is not None and eta.compute_left_s() == pytest.approx(eta.estimate.wall_s)
    eta.on_trial_start(make_trial(0), 0)
    clock.now_s += 7.0
    assert eta.compute_left_s() == pytest.approx(eta.estimate.wall_s - 7.0)
    clock.now_s += 700.0
    assert eta.compute_left_s() == 0.0


def test_a_stopped_trial_takes_its_remaining_steps_off_the_time_left() -> None:
    clock, eta = make_eta(num_trials=1)
    eta.on_trial_start(make_trial(0), 0)
    clock.now_s += 6.0 + ROUND_S
    tell_report(eta, 0, 3, seconds=6.0 + ROUND_S)
    search_s = eta.model.predict_search_s(THROUGHPUT)
    assert eta.compute_left_s() == pytest.approx(search_s * 6 / TRIAL_STEPS + TEST_S)
    eta.on_trial_end(make_trial(0), "stopped", "place 2 of 2")
    assert eta.compute_left_s() == pytest.approx(TEST_S)


@pytest.mark.parametrize(("actual", "scale"), [(2.0, 2.0), (0.5, 0.5), (100.0, SCALES[1])])
def test_reports_correct_the_measured_throughput_within_bounds(actual: float, scale: float) -> None:
    _, eta = make_eta()
    eta.on_trial_start(make_trial(0), 0)
    tell_report(eta, 0, 3, seconds=actual * (6.0 + ROUND_S))
    search_s = eta.model.predict_search_s(THROUGHPUT) * (6 + 2 * TRIAL_STEPS) / (3 * TRIAL_STEPS)
    assert eta.compute_left_s() == pytest.approx(scale * search_s + TEST_S)


@pytest.mark.parametrize(("margin_s", "late"), [(0.1, []), (-0.1, ["t0000"])])
def test_trials_are_late_by_their_next_rung(margin_s: float, late: list[str]) -> None:
    reports_s = 6 * 2.0 + ROUND_S
    budget_s = 6.0 + reports_s + margin_s + (1 + RESERVE_MARGIN_FRAC) * TEST_S
    clock, eta = make_eta(time_budget=f"{budget_s:.3f}s")
    eta.on_trial_start(make_trial(0), 0)
    eta.on_trial_start(make_trial(1), 1)
    clock.now_s += 6.0
    tell_report(eta, 0, 3, seconds=6.0 + ROUND_S)
    eta.on_trial_end(make_trial(1), "failed", "")
    assert eta.find_late_trials() == late


def test_a_resumed_sweep_has_left_what_its_log_has_not() -> None:
    done = [make_history(n, "completed", (3, 1.0), (9, 2.0)) for n in range(2)]
    left = make_history(2, None, (3, 0.5))
    assert Eta(MODEL, [*done, left]).compute_left_shares() == (
        pytest.approx(6 / (3 * TRIAL_STEPS)),
        1.0,
    )
    assert Eta(MODEL).compute_left_shares() == (pytest.approx(1.0), 1.0)


def test_finals_of_a_search_that_is_over_are_left_as_far_as_their_runs_are() -> None:
    two = {"finals": True, "num_finalists": 1, "num_final_seeds": 2, "start_points": ()}
    done = [make_history(n, "completed", (3, 1.0), (9, 2.0)) for n in range(3)]
    run = dataclasses.replace(done[0], trial_id="f0", final_of="t0000", seed=1)
    assert Eta(make_model(**KNOWN | two), [*done, run]).compute_left_shares() == (0.0, 0.5)
    more = make_model(**KNOWN | two | {"num_trials": 9})
    search_left, finals_left = Eta(more, [*done, run]).compute_left_shares()
    assert search_left > 0 and finals_left == 1.0


def test_in_the_finals_only_their_runs_are_left() -> None:
    one = {"finals": True, "num_finalists": 1, "num_final_seeds": 1, "start_points": ()}
    clock, eta = make_eta(**one)
    for number in range(2):  # a budget ended the search before the third began
        eta.on_trial_start(make_trial(number), number)
        tell_report(eta, number, 3, seconds=6.0 + ROUND_S)
        eta.on_trial_end(make_trial(number), "stopped", "")
    run = dataclasses.replace(make_history(0, None), trial_id="f0", final_of="t0000", seed=1)
    eta.on_finals_start([run])
    finals_s, test_s = (
        eta.model.predict_finals_s(THROUGHPUT, 1),
        eta.model.predict_test_s(THROUGHPUT),
    )
    assert finals_s > 9 * 2.0 and eta.compute_left_s() == pytest.approx(finals_s + test_s)
    trial = dataclasses.replace(make_trial(0), trial_id="f0")
    eta.on_trial_start(trial, 0)
    clock.now_s += 30.0
    report = dataclasses.replace(make_history(0, None, (3, 1.0)).reports[0], trial_id="f0")
    eta.on_report(trial, dataclasses.replace(report, seconds=6.0 + ROUND_S))
    assert eta.compute_left_s() == pytest.approx(finals_s * 6 / 9 + test_s)
    assert eta.find_late_trials() == []
