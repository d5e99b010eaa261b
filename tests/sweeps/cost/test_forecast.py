"""The forecast of a running sweep: from where it stands, at the pace that it shows."""

import dataclasses
import math
from typing import Any

import pytest

from sweeps.cost.forecast import FACTORS, Forecast, Observed, Scaled
from sweeps.cost.workload import CLOSING_S, EVALUATION_S, REPORT_S, Workload, start_s
from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import TrialRecord
from tests.sweeps.invented_load import Steady, make_load
from tests.sweeps.invented_sweep import METRIC, make_config, make_history, make_report
from trainables.config import TrialConfig

LOAD = make_load(num_trials=3, rungs=(3, 9), eval_rows=(0, 0), concurrency=3, test_rows=0)


ALONE_S = REPORT_S + EVALUATION_S
"""A report of one trial, and of three."""
ROUND_S = 3 * REPORT_S + EVALUATION_S
TEST_S = 2 * EVALUATION_S + CLOSING_S


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def make_forecast(
    clock: Clock, load: Workload = LOAD, *histories: TrialRecord, speed: Any = None
) -> Forecast:
    found = Forecast(load, METRIC, histories, now_s=clock)
    if speed is not None:
        found.measured(speed)
    return found


def trial(number: int) -> TrialConfig:
    trial_id = f"t{number:04d}"
    history = make_history(number, None)
    folder = RunPaths.of("/runs", "x").trial(trial_id)
    return TrialConfig(
        trial_id=trial_id, params=history.params, settings=make_config().settings, folder=folder
    )


def tell_report(forecast: Forecast, number: int, step: int, value: float, seconds: float) -> None:
    report = make_report(f"t{number:04d}", step, value)
    forecast.reported(trial(number), dataclasses.replace(report, seconds=seconds))


def test_without_a_pace_nothing_is_foretold_until_a_trial_reports() -> None:
    clock = Clock()
    forecast = make_forecast(clock)
    forecast.trial_started(trial(0), 0)
    assert forecast.left_s() is None and forecast.arrivals_s() == {}
    clock.now_s += 30.0
    tell_report(forecast, 0, 3, 1.0, seconds=30.0)
    clock.now_s += 10.0
    assert forecast.speed == Observed(10.0)
    left_s = forecast.left_s()
    assert left_s is not None and left_s > 50.0


def test_a_measured_pace_foretells_the_sweep_before_its_first_trial() -> None:
    forecast = make_forecast(Clock(), speed=Steady(2.0))
    left_s = forecast.left_s()
    assert left_s == pytest.approx(start_s(LOAD, 3) + 9 * 2.0 + ROUND_S + ALONE_S + TEST_S)


def test_the_time_left_counts_down_between_two_forecasts() -> None:
    clock = Clock()
    forecast = make_forecast(clock, speed=Steady(2.0))
    first_s = forecast.left_s()
    clock.now_s += 1.5
    assert first_s is not None
    assert forecast.left_s() == pytest.approx(first_s - 1.5)


@pytest.mark.parametrize(("actual_s", "factor"), [(12.0, 2.0), (3.0, 0.5), (600.0, FACTORS[1])])
def test_reports_correct_the_measured_pace_within_bounds(actual_s: float, factor: float) -> None:
    clock = Clock()
    forecast = make_forecast(clock, speed=Steady(2.0))
    forecast.trial_started(trial(0), 0)
    tell_report(forecast, 0, 3, 1.0, seconds=actual_s + ALONE_S)
    speed = forecast.speed
    assert isinstance(speed, Scaled) and speed.factor == pytest.approx(factor)
    assert speed.step_s(1) == pytest.approx(2.0 * factor)


def test_a_stopped_trial_takes_its_remaining_steps_off_the_time_left() -> None:
    clock = Clock()
    load = dataclasses.replace(LOAD, num_trials=1)
    forecast = make_forecast(clock, load, speed=Steady(2.0))
    forecast.trial_started(trial(0), 0)
    tell_report(forecast, 0, 3, 1.0, seconds=6.0 + ALONE_S)
    clock.now_s += 10.0
    before_s = forecast.left_s()
    forecast.trial_ended(trial(0), "stopped", "place 2 of 2")
    clock.now_s += 10.0
    assert before_s == pytest.approx(6 * 2.0 - 10.0 + ALONE_S + TEST_S)
    assert forecast.left_s() == pytest.approx(TEST_S)


def test_arrivals_are_those_of_running_trials_at_their_next_rung() -> None:
    clock = Clock()
    forecast = make_forecast(clock, speed=Steady(2.0))
    forecast.trial_started(trial(0), 0)
    forecast.trial_started(trial(1), 1)
    clock.now_s += 6.0
    tell_report(forecast, 0, 3, 1.0, seconds=6.0 + ALONE_S + REPORT_S)
    forecast.trial_ended(trial(1), "failed", "")
    assert forecast.arrivals_s() == {"t0000": pytest.approx(1006 + 6 * 2.0 + ALONE_S)}
    assert forecast.num_reported == 1


def test_a_resumed_sweep_is_foretold_from_where_it_stands() -> None:
    done = [make_history(n, "completed", (3, 1.0), (9, 2.0)) for n in range(2)]
    left = make_history(2, None, (3, 0.5))
    forecast = make_forecast(Clock(), LOAD, *done, left, speed=Steady(2.0))
    state = forecast.state(Steady(2.0))
    assert state.num_begun == 3
    assert [(one.trial_id, one.step) for one in state.running] == [("t0002", 3.0)]
    assert set(state.values[3]) == {"t0000", "t0001", "t0002"}
    assert forecast.left_s() == pytest.approx(6 * 2.0 + ALONE_S + TEST_S)


def test_places_follow_the_first_rung_and_scores_that_are_no_numbers_stand_in_the_middle() -> None:
    values = {0: 1.0, 1: 5.0, 2: 3.0, 3: math.nan}
    histories = [make_history(n, None, (3, value)) for n, value in values.items()]
    forecast = make_forecast(Clock(), LOAD, *histories)
    places = {one.trial_id: one.value for one in forecast.state(Steady()).running}
    assert places["t0000"] < places["t0002"] < places["t0001"]
    assert places["t0003"] == 0.5


def test_runs_of_earlier_finals_are_no_trials_of_a_search_that_goes_on() -> None:
    done = [make_history(n, "completed", (3, 1.0), (9, 2.0)) for n in range(2)]
    old = dataclasses.replace(done[0], trial_id="f0", final_of="t0000", seed=1)
    forecast = make_forecast(Clock(), LOAD, *done, old, speed=Steady(2.0))
    assert forecast.num_begun == 2 and not forecast.is_in_finals
    new = dataclasses.replace(make_history(1, None), trial_id="f1", final_of="t0001", seed=1)
    forecast.finals_started([new])
    assert forecast.num_begun == 2 and forecast.is_in_finals
    state = forecast.state(Steady(2.0))
    assert state.final_runs is not None
    assert [run.trial_id for run in state.final_runs] == ["f1"]


def test_in_the_finals_only_their_runs_are_left() -> None:
    clock = Clock()
    forecast = make_forecast(clock, speed=Steady(2.0))
    for number in range(3):
        forecast.trial_started(trial(number), number)
        tell_report(forecast, number, 3, 1.0, seconds=6.0 + ALONE_S)
        forecast.trial_ended(trial(number), "stopped", "")
    runs = [
        dataclasses.replace(make_history(n, None), trial_id=f"f{n}", final_of=f"t{n:04d}", seed=1)
        for n in range(2)
    ]
    clock.now_s += 10.0
    before_s = forecast.left_s()
    forecast.finals_started(runs)
    clock.now_s += 10.0
    assert before_s == pytest.approx(TEST_S)
    reports_s = 2 * (2 * REPORT_S + EVALUATION_S)
    assert forecast.left_s() == pytest.approx(9 * 2.0 + reports_s + TEST_S)
    assert forecast.is_in_finals and forecast.num_reported == 3
