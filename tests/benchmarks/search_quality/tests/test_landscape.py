"""A table as an objective."""

from dataclasses import replace

import pytest

from tests.benchmarks.search_quality.landscape import Landscape
from tests.benchmarks.search_quality.measurements import Measurement, Run, Table
from tests.benchmarks.search_quality.tests.synthetic_table import RUNGS, STEP_GPU_S, make_table
from trainables.config import Hyperparameters, Metric

METRIC = Metric(name="rougeLsum")


def test_regret_is_zero_for_the_best_mean_alone() -> None:
    landscape = Landscape(make_table(levels=4), METRIC)
    regrets = {one: landscape.find_regret(one) for one in landscape.mean_finals}
    assert [one for one, regret in regrets.items() if regret == 0] == [landscape.best]
    assert landscape.mean_finals[landscape.best] == max(landscape.mean_finals.values())
    assert landscape.mean_regret == pytest.approx(sum(regrets.values()) / len(regrets))


def test_where_less_is_better_the_lowest_mean_is_the_best() -> None:
    landscape = Landscape(make_table(levels=4), Metric(name="eval_loss", mode="min"))
    assert landscape.mean_finals[landscape.best] == min(landscape.mean_finals.values())
    assert min(map(landscape.find_regret, landscape.mean_finals)) == 0


def test_a_point_has_the_values_of_the_configuration_that_stands_for_it() -> None:
    table = make_table(levels=4)
    landscape = Landscape(table, METRIC)
    found = landscape.find_configuration(
        Hyperparameters(learning_rate=9e-4, lora_rank=8, lora_alpha=4.0, lora_dropout=0.1)
    )
    assert found.learning_rate == 1e-3 and found.alpha_over_rank == 0.5
    (trained,) = [one for one in table.trained if one.configuration == found]
    for number, run in enumerate(trained.runs):
        for one in run.measurements:
            assert landscape.find_value(found, number, one.step) == one.metrics["rougeLsum"]


def test_a_full_training_costs_its_steps_and_its_evaluations() -> None:
    landscape = Landscape(make_table(levels=2), METRIC)
    expected_s = RUNGS[-1] * STEP_GPU_S + 0.025 + 0.1
    assert landscape.sum_gpu_s((100, 900)) == pytest.approx(48 * expected_s)


def test_a_training_that_failed_reports_no_more_and_counts_as_the_worst() -> None:
    table = fail_first_run(make_table(levels=2), at_step=100)
    landscape = Landscape(table, METRIC)
    failed = table.trained[0].configuration
    assert landscape.find_value(failed, 0, 56) is not None
    assert landscape.find_value(failed, 0, 100) is None
    assert landscape.find_value(failed, 1, 100) is not None
    whole = Landscape(make_table(levels=2), METRIC)
    assert landscape.mean_finals[failed] < whole.mean_finals[failed]


def fail_first_run(table: Table, at_step: int) -> Table:
    first, *others = table.trained
    kept = [one for one in first.runs[0].measurements if one.step < at_step]
    failed = Run(seed=0, measurements=(*kept, Measurement(step=at_step, failed="non-finite loss")))
    return replace(table, trained=(replace(first, runs=(failed, *first.runs[1:])), *others))
