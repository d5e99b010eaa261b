"""The time left of a running sweep: from where it stands, at the rate that it shows."""

import dataclasses

import pytest

from sweeps.cost.estimate import CLOSING_S, REPORT_S, ROUND_S
from sweeps.cost.eta import SCALES, Eta
from tests.sweeps.invented_sweep import make_history
from tests.sweeps.small_costs import Clock, make_model, make_throughput, make_trial, tell_report

MODEL = make_model(
    num_trials=3, rungs=(3, 9), eval_rows=(0, 0), concurrency=3, test_rows=0, reduction_factor=2
)
PROMOTED = 1.4 / 2
ALONE_S = REPORT_S + ROUND_S
"""A report of one trial."""
THROUGHPUT = make_throughput(step_fixed_s=2.0)


def test_nothing_is_known_until_a_trial_reports_and_then_its_rate_tells_the_rest() -> None:
    clock = Clock()
    eta = Eta(MODEL, now_s=clock)
    eta.trial_started(make_trial(0), 0)
    assert eta.left_s() is None and eta.next_reports_s() == {} and eta.after_search_s(2) is None
    clock.now_s += 30.0
    tell_report(eta, 0, 3, seconds=30.0)
    steps_left = PROMOTED * 0 + 6 + 2 * (3 + PROMOTED * 6)
    assert eta.left_s() == pytest.approx(10.0 * steps_left + CLOSING_S)
    assert eta.next_reports_s() == {"t0000": pytest.approx(clock.now_s + 6 * 10.0)}


def test_what_was_predicted_is_told_until_a_trial_reports() -> None:
    clock = Clock()
    eta = Eta(MODEL, now_s=clock)
    eta.set_throughput(THROUGHPUT, left_s=77.0)
    eta.trial_started(make_trial(0), 0)
    clock.now_s += 7.0
    assert eta.left_s() == pytest.approx(70.0)
    clock.now_s += 700.0
    assert eta.left_s() == 0.0


def test_a_stopped_trial_takes_its_remaining_steps_off_the_time_left() -> None:
    clock = Clock()
    eta = Eta(dataclasses.replace(MODEL, num_trials=1), now_s=clock)
    eta.set_throughput(THROUGHPUT, left_s=77.0)
    eta.trial_started(make_trial(0), 0)
    clock.now_s += 6.0 + ALONE_S
    tell_report(eta, 0, 3, seconds=6.0 + ALONE_S)
    test_s = MODEL.test_s(THROUGHPUT)
    assert eta.left_s() == pytest.approx(6 * (6.0 + ALONE_S) / 3 + test_s)
    eta.trial_ended(make_trial(0), "stopped", "place 2 of 2")
    assert eta.left_s() == pytest.approx(test_s)


@pytest.mark.parametrize(("actual", "scale"), [(2.0, 2.0), (0.5, 0.5), (100.0, SCALES[1])])
def test_reports_correct_the_measured_throughput_within_bounds(actual: float, scale: float) -> None:
    clock = Clock()
    eta = Eta(MODEL, now_s=clock)
    eta.set_throughput(THROUGHPUT, left_s=77.0)
    eta.trial_started(make_trial(0), 0)
    expected_s = eta.first_report_s()
    assert expected_s == pytest.approx(6.0 + ALONE_S)
    tell_report(eta, 0, 3, seconds=actual * expected_s)
    assert eta.first_report_s() == pytest.approx(scale * expected_s)
    assert eta.after_search_s(3) == pytest.approx(
        scale * MODEL.finals_s(THROUGHPUT, 3) + MODEL.test_s(THROUGHPUT)
    )


def test_next_reports_are_those_of_running_trials_at_their_next_rung() -> None:
    clock = Clock()
    eta = Eta(MODEL, now_s=clock)
    eta.set_throughput(THROUGHPUT, left_s=77.0)
    eta.trial_started(make_trial(0), 0)
    eta.trial_started(make_trial(1), 1)
    clock.now_s += 6.0
    tell_report(eta, 0, 3, seconds=6.0 + ALONE_S + REPORT_S)
    eta.trial_ended(make_trial(1), "failed", "")
    assert eta.next_reports_s() == {"t0000": pytest.approx(1006 + 6 * 2.0 + ALONE_S)}
    assert eta.num_reported == 1 and eta.num_begun == 2
    clock.now_s += 500.0
    assert eta.next_reports_s() == {"t0000": clock.now_s}


def test_a_resumed_sweep_has_left_what_its_log_has_not() -> None:
    done = [make_history(n, "completed", (3, 1.0), (9, 2.0)) for n in range(2)]
    left = make_history(2, None, (3, 0.5))
    eta = Eta(MODEL, [*done, left], now_s=Clock())
    assert eta.num_begun == 3 and eta.num_reported == 3
    assert eta.search_left == pytest.approx(6 / (6 + 9 + 9 + 3))
    assert eta.finals_left == 1.0
    assert Eta(MODEL).search_left == 1.0


def test_finals_of_a_search_that_is_over_are_left_as_far_as_their_runs_are() -> None:
    model = dataclasses.replace(MODEL, num_final_runs=2)
    done = [make_history(n, "completed", (3, 1.0), (9, 2.0)) for n in range(3)]
    run = dataclasses.replace(done[0], trial_id="f0", final_of="t0000", seed=1)
    eta = Eta(model, [*done, run], now_s=Clock())
    assert (eta.search_left, eta.finals_left) == (0.0, 0.5)
    assert eta.num_begun == 3
    more = dataclasses.replace(model, num_trials=9)
    assert Eta(more, [*done, run], now_s=Clock()).finals_left == 1.0


def test_in_the_finals_only_their_runs_are_left() -> None:
    clock = Clock()
    eta = Eta(MODEL, now_s=clock)
    eta.set_throughput(THROUGHPUT, left_s=77.0)
    for number in range(3):
        eta.trial_started(make_trial(number), number)
        tell_report(eta, number, 3, seconds=6.0 + ALONE_S)
        eta.trial_ended(make_trial(number), "stopped", "")
    run = dataclasses.replace(make_history(0, None), trial_id="f0", final_of="t0000", seed=1)
    eta.finals_started([run])
    before_s = eta.left_s()
    assert before_s is not None and before_s > MODEL.test_s(THROUGHPUT) + 9 * 2.0
    trial = dataclasses.replace(make_trial(0), trial_id="f0")
    eta.trial_started(trial, 0)
    clock.now_s += 30.0
    report = dataclasses.replace(make_history(0, None, (3, 1.0)).reports[0], trial_id="f0")
    eta.reported(trial, dataclasses.replace(report, seconds=30.0))
    assert eta.left_s() == pytest.approx(6 * 10.0 + MODEL.test_s(THROUGHPUT))
    assert eta.num_reported == 3 and eta.next_reports_s() == {}
