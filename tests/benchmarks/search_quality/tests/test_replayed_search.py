"""Searches replayed over a table: who reports with whom, and what it costs."""

from collections.abc import Mapping

import pytest

from sweeps.recipes import samsum
from tests.benchmarks.search_quality.contenders import CONTENDERS, OURS
from tests.benchmarks.search_quality.landscape import Landscape
from tests.benchmarks.search_quality.methods import DEFAULT_ASHA, Best, Task
from tests.benchmarks.search_quality.simulation import Moment, Simulation, find_regrets
from tests.benchmarks.search_quality.tests.synthetic_table import STEP_GPU_S, make_table
from tests.benchmarks.search_quality.tests.test_landscape import fail_first_run
from trainables.config import Hyperparameters, Metric

METRIC = Metric(name="rougeLsum")
LANDSCAPE = Landscape(make_table(levels=4), METRIC)


class Scripted:
    """A method that proposes one point over and over, and stops the trials that it is told to."""

    rungs: tuple[int, ...] = (100, 300, 900)

    def __init__(self, stopped: set[int] | None = None, learning_rate: float = 1e-3) -> None:
        self._stopped = stopped or set()
        self._learning_rate = learning_rate
        self.num_proposed = 0
        self.reports: list[tuple[int, tuple[int, ...]]] = []
        self.failed: list[int] = []

    def propose(self) -> tuple[int, Hyperparameters]:
        self.num_proposed += 1
        return self.num_proposed - 1, Hyperparameters(
            learning_rate=self._learning_rate, lora_rank=8, lora_alpha=4.0
        )

    def report(self, step: int, values: Mapping[int, float]) -> Mapping[int, bool]:
        self.reports.append((step, tuple(values)))
        return {number: number not in self._stopped for number in values}

    def fail(self, number: int) -> None:
        self.failed.append(number)

    @property
    def choice(self) -> int | None:
        return self.reports[0][1][0] if self.reports else None


def test_trials_that_began_together_report_together_and_freed_slots_are_filled() -> None:
    method = Scripted(stopped={1, 2})
    Simulation(LANDSCAPE, method, concurrency=3, seed=0).run(4.0)
    assert method.reports[:5] == [
        (100, (0, 1, 2)),
        (100, (3, 4)),
        (300, (0,)),
        (300, (3, 4)),
        (900, (0,)),
    ], "trials 1 and 2 are stopped at once, 3 and 4 take their slots 100 steps behind 0"


def test_gpu_seconds_are_those_of_all_steps_and_evaluations() -> None:
    moments = Simulation(LANDSCAPE, Scripted(), concurrency=4, seed=0).run(10.0)
    eval_s = [0.025, 0.025, 0.1]
    expected = [0.0]
    for num_steps, one_eval_s in zip([100, 200, 600], eval_s, strict=True):
        expected.append(expected[-1] + 4 * (num_steps * STEP_GPU_S + one_eval_s))
    assert [moment.gpu_s for moment in moments[:4]] == pytest.approx(expected)


def test_nothing_is_spent_beyond_the_budget() -> None:
    moments = Simulation(LANDSCAPE, Scripted(), concurrency=4, seed=0).run(1.0)
    assert 0.4 < moments[-1].gpu_s <= 1.0
    more = Simulation(LANDSCAPE, Scripted(), concurrency=4, seed=0).run(2.0)
    assert moments == [moment for moment in more if moment.gpu_s <= 1.0]
    assert len(more) > len(moments)


def test_before_the_first_report_regret_is_that_of_any_configuration() -> None:
    (first, second, *_) = Simulation(LANDSCAPE, Scripted(), concurrency=2, seed=0).run(2.0)
    assert first == Moment(gpu_s=0.0, regret=LANDSCAPE.mean_regret)
    chosen = LANDSCAPE.find_configuration(Scripted().propose()[1])
    assert second.regret == LANDSCAPE.find_regret(chosen)


def test_a_trial_whose_training_failed_leaves_its_slot_to_the_next() -> None:
    landscape = Landscape(fail_first_run(make_table(levels=4), at_step=100), METRIC)
    failing = landscape.find_configuration(Scripted(learning_rate=3e-5).propose()[1])
    assert landscape.find_value(failing, 0, 100) is None
    method = Scripted(learning_rate=3e-5)
    Simulation(landscape, method, concurrency=8, seed=0).run(6.0)
    assert method.failed, "none of the trials drew the run that failed"
    assert not {n for _, numbers in method.reports for n in numbers} & set(method.failed)
    assert method.num_proposed > 8


def test_the_regret_at_a_budget_is_that_of_the_last_moment_before_it() -> None:
    moments = [Moment(gpu_s=s, regret=r) for s, r in ((0.0, 5.0), (1.0, 3.0), (2.0, 4.0))]
    assert find_regrets(moments, [0.5, 1.0, 1.9, 2.0, 9.0]) == [5.0, 3.0, 3.0, 4.0, 4.0]


@pytest.mark.parametrize("name", CONTENDERS)
def test_a_search_is_the_same_for_the_same_seed_and_gets_better(name: str) -> None:
    def search() -> list[Moment]:
        task = Task(space=LANDSCAPE.space, metric=METRIC, max_steps=900, concurrency=8, seed=3)
        return Simulation(LANDSCAPE, CONTENDERS[name](task), 8, seed=3).run(15.0)

    first = search()
    assert search() == first
    assert first[-1].regret < LANDSCAPE.mean_regret / 2


def test_what_is_replayed_as_this_project_has_the_rungs_of_its_recipe() -> None:
    recipe = samsum()
    assert OURS in CONTENDERS
    assert DEFAULT_ASHA.reduction_factor == recipe.reduction_factor
    assert DEFAULT_ASHA.list_rungs(recipe.max_steps) == recipe.rungs


def test_the_choice_is_the_best_of_the_highest_rung_that_any_trial_has_reached() -> None:
    best = Best(METRIC)
    assert best.number is None
    for step, number, value in ((56, 0, 20.0), (56, 1, 25.0), (56, 2, 22.0)):
        best.record(step, number, value)
    assert best.number == 1
    best.record(225, 2, 21.0)
    best.record(56, 3, 40.0)
    assert best.number == 2
