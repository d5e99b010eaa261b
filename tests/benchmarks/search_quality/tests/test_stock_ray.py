"""Ray's search and scheduler, as this benchmark drives them."""

import optuna
import pytest

from tests.benchmarks.search_quality.landscape import Landscape
from tests.benchmarks.search_quality.methods import AshaOptions, Task
from tests.benchmarks.search_quality.stock_ray import StockRay
from tests.benchmarks.search_quality.tests.synthetic_table import make_table
from trainables.config import Metric

METRIC = Metric(name="rougeLsum")
THIRDS = AshaOptions(reduction_factor=3)
"""Rungs at steps 100, 300 and 900."""


def make_method() -> StockRay:
    space = Landscape(make_table(levels=4), METRIC).space
    return StockRay(Task(space=space, metric=METRIC, max_steps=900, concurrency=8, seed=0), THIRDS)


@pytest.mark.parametrize(("values", "num_kept"), [(range(8), 8), (range(8, 0, -1), 1)])
def test_what_it_keeps_depends_on_the_order_of_arrival(values: range, num_kept: int) -> None:
    ray = make_method()
    numbers = [ray.propose()[0] for _ in values]
    kept = ray.report(100, {n: float(v) for n, v in zip(numbers, values, strict=True)})
    assert sum(kept.values()) == num_kept


def test_stopped_trials_are_told_as_complete_and_the_choice_mixes_rungs() -> None:
    ray = make_method()
    numbers = [ray.propose()[0] for _ in range(4)]
    ray.report(100, {numbers[0]: 30.0})
    kept = ray.report(100, dict.fromkeys(numbers[1:], 20.0))
    assert not any(kept.values())
    ray.report(300, {numbers[0]: 25.0})
    states = [trial.state for trial in ray._search._ot_study.trials]
    running, complete = optuna.trial.TrialState.RUNNING, optuna.trial.TrialState.COMPLETE
    assert states == [running, complete, complete, complete]
    ray.report(100, {ray.propose()[0]: 29.0})
    assert ray.choice == 4, "a value of the lowest rung beats a better trial's later one"


def test_a_trial_at_the_full_budget_ends() -> None:
    ray = make_method()
    number, _ = ray.propose()
    assert ray.report(100, {number: 10.0})[number] and ray.report(300, {number: 11.0})[number]
    assert not ray.report(900, {number: 12.0})[number]
    assert ray.choice == number
