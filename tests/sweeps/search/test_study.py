"""The search: what Optuna is told, and what a resume takes over from the event log."""

from dataclasses import asdict
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from search_spaces.lora import LoraSpace, Point, make_hyperparameters
from sweeps.cost import plan
from sweeps.records.trial_record import TrialRecord
from sweeps.search.study import Search, choose_num_startup_trials
from sweeps.search.study_writer import freeze_trial
from tests.sweeps.invented_sweep import METRIC, SPACE, make_config, make_history, point
from trainables.config import Hyperparameters

STARTS = (point(2e-4), point(1e-3, rank=16))


class Process:
    """A sweep's process, which knows of earlier ones what the log has."""

    def __init__(
        self, *records: TrialRecord, starts: tuple[Point, ...] = (), seed: int = 0, startup: int = 3
    ) -> None:
        self.study = optuna.create_study(direction="maximize")
        self.search = Search(self.study, SPACE, seed, startup)
        self.search.restore(records, METRIC, starts)
        self.records = list(records)

    def draw(self, status: Any = "", value: float | None = None, **more: Any) -> Hyperparameters:
        """A trial that reports once and ends."""
        number, params = self.search.propose()
        value = -abs(params.learning_rate - 1e-3) if value is None else value
        status = status or ("stopped", "completed")[number % 2]
        self.search.report(number, 1, value)
        self.search.finish(number, status, value)
        self.records.append(make_history(number, status, (1, value), params=params, **more))
        return params


def params_of(start: Point) -> Hyperparameters:
    return Hyperparameters(**make_hyperparameters(start))


def test_states_and_values_are_what_happened() -> None:
    process = Process()
    search = process.search
    for number, steps in enumerate([(1, 3), (1,), (1, 3), (), ()]):
        assert search.propose()[0] == number
        for step in steps:
            search.report(number, step, 10.0 * step + number)
    search.finish(0, "completed", 30.0)
    search.finish(1, "stopped", 11.0)
    search.finish(2, "failed", 32.0)
    search.finish(3, "stopped", None)
    search.finish(0, "failed", None)  # a trial that has ended stays as it is
    assert [(t.state, t.value, t.intermediate_values) for t in process.study.trials] == [
        (TrialState.COMPLETE, 30.0, {1: 10.0, 3: 30.0}),
        (TrialState.PRUNED, 11.0, {1: 11.0}),
        (TrialState.FAIL, None, {1: 12.0, 3: 32.0}),
        (TrialState.PRUNED, None, {}),
        (TrialState.RUNNING, None, {}),
    ]


def test_start_points_come_first_in_order_and_once() -> None:
    process = Process(starts=STARTS)
    assert process.draw() == params_of(STARTS[0])
    process = Process(*process.records, starts=STARTS)
    assert process.draw() == params_of(STARTS[1])
    drawn = [Process(*process.records, starts=STARTS).draw(), process.draw()]
    assert drawn[0] == drawn[1] and drawn[0] not in map(params_of, STARTS)


def test_points_asked_for_come_after_start_points_that_wait_and_stay_told() -> None:
    process = Process(starts=STARTS)
    process.search.enqueue({"learning_rate": 5e-4, "lora_rank": 128}, is_asked=True)
    drawn = [process.draw(), process.draw(), process.draw()]
    assert drawn[:2] == [params_of(start) for start in STARTS]
    assert (drawn[2].learning_rate, drawn[2].lora_rank) == (5e-4, 128)
    assert process.search.asked == {2}
    assert "lora_rank" not in process.study.trials[2].params


def test_where_not_all_points_fit_start_points_are_left_out() -> None:
    process = Process(starts=STARTS)
    process.search.enqueue({"lora_rank": 128}, is_asked=True)
    (first, _), (second, asked) = process.search.propose(2), process.search.propose(1)
    assert (first, second, asked.lora_rank) == (0, 1, 128) and process.search.asked == {1}


def test_resume_goes_on_as_if_nothing_had_happened() -> None:
    process = Process()
    whole = [process.draw() for _ in range(8)]
    parts: list[Hyperparameters] = []
    records: list[TrialRecord] = []
    for _ in range(8):
        again = Process(*records)
        parts.append(again.draw())
        records = again.records
    assert parts == whole and len(set(whole)) == 8


def test_restored_trials_are_those_of_the_log_and_unfinished_ones_go_on() -> None:
    process = Process(starts=STARTS)
    process.draw("completed")
    process.search.enqueue({"learning_rate": 0.5, "lora_rank": 128}, is_asked=True)
    process.draw("failed")
    process.draw("stopped", is_asked=True)
    number, params = process.search.propose()
    process.search.report(number, 1, 5.0)
    process.records.append(make_history(number, None, (1, 5.0), params=params))
    again = Process(*process.records)
    facts = ("number", "state", "value", "params", "distributions", "intermediate_values")
    left, right = ([asdict_of(t, facts) for t in p.study.trials] for p in (process, again))
    assert left == right
    frozen = [freeze_trial(record, SPACE, METRIC) for record in process.records]
    assert [asdict_of(trial, facts[1:]) for trial in frozen] == [
        {name: trial[name] for name in facts[1:]} for trial in left
    ]
    again.search.report(number, 3, 6.0)
    assert again.study.trials[number].intermediate_values == {1: 5.0, 3: 6.0}
    assert again.search.propose()[0] == number + 1


def asdict_of(trial: optuna.trial.FrozenTrial, facts: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(trial, name) for name in facts}


def test_trials_whose_lines_the_log_has_lost_keep_their_numbers() -> None:
    process = Process(make_history(0, "stopped", (1, 1.0)), make_history(3, "stopped", (1, 2.0)))
    assert process.search.propose()[0] == 4


def test_another_seed_draws_other_points() -> None:
    drawn = [Process(seed=seed).draw().learning_rate for seed in (0, 1, 4295, 2**40)]
    assert len(set(drawn)) == 4


@pytest.mark.parametrize("over", (0.1, 0.3, 0.7, 1.1))
def test_every_point_is_found_again_by_what_was_made_of_it(over: float) -> None:
    sets = ("all", "q_proj,v_proj")
    space = LoraSpace(lora_ranks=(3, 7, 49), alphas_over_rank=(over,), target_modules=sets)
    for rank in space.lora_ranks:
        whole = point(2e-4, rank) | {"alpha_over_rank": over, "target_modules": sets[rank % 2]}
        params = Hyperparameters(**make_hyperparameters(whole))
        assert space.find_point(asdict(params)) == whole


def test_start_points_outside_of_the_space_are_left_out() -> None:
    outside = (point(1.0), point(2e-4, rank=128))
    config = make_config(start_points=(outside[0], *STARTS, outside[1]))
    assert plan.list_start_points(config) == list(STARTS)
    assert plan.list_start_points(make_config(start_points=outside)) == []


def test_trials_proposed_together_differ_after_the_start_up() -> None:
    process = Process(startup=2)
    for _ in range(3):
        process.draw()
    assert len({process.search.propose()[1].learning_rate for _ in range(4)}) == 4


def test_stopped_trials_teach_the_sampler() -> None:
    study = optuna.create_study(direction="maximize")
    space = LoraSpace(learning_rates=(1e-5, 1e-1))
    search = Search(study, space, seed=0, num_startup_trials=12)
    rates = []
    for _ in range(30):
        number, params = search.propose()
        rates.append(params.learning_rate)
        score = 10.0 if params.learning_rate < 1e-3 else 1.0
        search.report(number, 1, score)
        search.finish(number, "stopped", score)
    assert sum(rate < 1e-3 for rate in rates[-10:]) >= 8 > sum(r < 1e-3 for r in rates[:12])


@pytest.mark.parametrize(("num_trials", "expected"), [(100, 10), (32, 10), (12, 4), (1, 1)])
def test_start_up_is_a_third_of_the_sweep_and_ten_at_most(num_trials: int, expected: int) -> None:
    assert choose_num_startup_trials(num_trials) == expected
