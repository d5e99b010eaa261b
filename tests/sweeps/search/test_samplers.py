"""Where points come from: partial start points, samplers; what plain Optuna makes of a study."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from search_spaces.lora import POINT_NAMES, Point
from sweeps.config import Sampler
from sweeps.cost import plan
from sweeps.records.trial_record import TrialRecord
from sweeps.search.study import Search
from sweeps.search.study_writer import StudyWriter
from tests.sweeps.invented_sweep import METRIC, SPACE, make_config, make_history, point
from trainables.config import Hyperparameters

WHOLE = point(1e-3, rank=16)
PARTIAL: tuple[Point, ...] = ({"learning_rate": 5e-4}, WHOLE, {"lora_rank": 4, "use_rslora": False})
SAMPLERS: tuple[Sampler, ...] = ("tpe", "gp", "random")


def new_search(starts: tuple[Point, ...] = (), *records: TrialRecord) -> Search:
    search = Search(optuna.create_study(direction="maximize"), SPACE, seed=0, num_startup_trials=3)
    search.restore(records, METRIC, starts)
    return search


def test_partial_start_points_keep_what_they_name_and_have_the_rest_drawn() -> None:
    search = new_search(PARTIAL)
    drawn = [search.propose()[1] for _ in PARTIAL]
    for params, start in zip(drawn, PARTIAL, strict=True):
        found = SPACE.find_point(vars(params))
        assert SPACE.contains(found) and set(found) == POINT_NAMES
        assert {name: found[name] for name in start} == start


@pytest.mark.parametrize("num_before", range(5))
def test_partial_start_points_are_tried_once_however_often_a_sweep_is_resumed(
    num_before: int,
) -> None:
    search, begun = new_search(PARTIAL), []
    for number in range(5):
        begun.append(make_history(number, None, params=search.propose()[1]))
        if number + 1 in (num_before, num_before + 1):
            search = new_search(PARTIAL, *begun)
    whole = new_search(PARTIAL)
    assert [record.params for record in begun] == [whole.propose()[1] for _ in range(5)]


def test_part_of_a_point_lies_outside_if_what_it_names_does() -> None:
    parts: tuple[Point, ...] = ({"lora_rank": 128}, {"learning_rate": 5e-4}, {"learning_rate": 1.0})
    config = make_config(start_points=parts)
    assert plan.list_start_points(config) == [{"learning_rate": 5e-4}]


@pytest.mark.parametrize("kind", SAMPLERS)
def test_sampler_draws_inside_of_the_space_and_trials_drawn_together_differ(kind: Sampler) -> None:
    study = optuna.create_study(direction="maximize")
    search = Search(study, SPACE, seed=0, num_startup_trials=4, sampler=kind)
    for number in range(6):
        _, params = search.propose()
        search.report(number, 1, -abs(params.learning_rate - 1e-3))
        search.finish(number, ("stopped", "completed")[number % 2], 0.0)
    together = [search.propose()[1] for _ in range(3)]
    assert all(SPACE.contains(trial.params) for trial in study.trials)
    assert len(set(together)) == 3


@pytest.mark.parametrize("kind", SAMPLERS)
def test_sets_of_linear_layers_are_drawn_and_the_better_one_is_learnt(kind: Sampler) -> None:
    sets = ("all", "attention", "q_proj,v_proj")
    space = replace(SPACE, target_modules=sets)
    study = optuna.create_study(direction="maximize")
    search = Search(study, space, seed=0, num_startup_trials=6, sampler=kind)
    drawn = []
    for number in range(14):
        _, params = search.propose()
        drawn.append(params.target_modules)
        search.report(number, 1, 10.0 * (params.target_modules == ("q_proj", "v_proj")))
        search.finish(number, "stopped", None)
    assert set(drawn) == {("all",), ("attention",), ("q_proj", "v_proj")}
    assert kind == "random" or drawn[8:].count(("q_proj", "v_proj")) >= 4


@pytest.mark.parametrize("kind", ("tpe", "gp"))
def test_sampler_that_learns_finds_the_better_half_sooner_than_chance(kind: Sampler) -> None:
    study = optuna.create_study(direction="maximize")
    search = Search(study, SPACE, seed=1, num_startup_trials=8, sampler=kind)
    rates = []
    for number in range(14):
        _, params = search.propose()
        rates.append(params.learning_rate)
        search.report(number, 1, 10.0 * (params.learning_rate > 1e-3))
        search.finish(number, "stopped", None)
    late = rates[8:]
    assert sum(rate > 1e-3 for rate in late) >= len(late) - 1


def test_random_sampler_learns_nothing() -> None:
    def drawn(score: Callable[[Hyperparameters], float]) -> list[Hyperparameters]:
        search = Search(optuna.create_study(), SPACE, 0, num_startup_trials=1, sampler="random")
        found = []
        for number in range(6):
            _, params = search.propose()
            search.report(number, 1, score(params))
            search.finish(number, "completed", score(params))
            found.append(params)
        return found

    assert drawn(lambda params: params.learning_rate) == drawn(lambda params: -params.lora_rank)


def test_sampler_may_be_a_function_of_the_draws_seed() -> None:
    seeds: list[int] = []

    def maker(seed: int) -> optuna.samplers.BaseSampler:
        seeds.append(seed)
        return optuna.samplers.RandomSampler(seed=seed)

    search = Search(optuna.create_study(), SPACE, 0, num_startup_trials=1, sampler=maker)
    made = [search.propose()[1] for _ in range(3)]
    chosen = Search(optuna.create_study(), SPACE, 0, num_startup_trials=1, sampler="random")
    assert [chosen.propose()[1] for _ in range(3)] == made
    assert len(set(seeds)) == 3


def test_plain_optuna_reads_the_study_of_a_sweep(tmp_path: Path) -> None:
    """Importance and the best trial come from completed trials, whatever stopped ones reached."""
    search, records = new_search(PARTIAL), []
    for number, status in enumerate(["completed", "stopped", "failed", "completed", "stopped"]):
        _, params = search.propose()
        value = 10.0 + 1e3 * params.learning_rate
        scores = [(1, 90.0 if status == "stopped" else value / 2)]
        scores += [(9, value)] if status == "completed" else []
        records.append(make_history(number, status, *scores, params=params))
    url = f"sqlite:///{tmp_path}/optuna.db"
    StudyWriter(url, "sweep", SPACE, METRIC).replay([], records)
    study = optuna.load_study(study_name="sweep", storage=url)
    completed = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert [trial.number for trial in completed] == [0, 3]
    assert study.best_trial.number == max(completed, key=lambda trial: trial.value or 0).number
    assert study.best_value == study.best_trial.intermediate_values[9] < 90.0
    importances = optuna.importance.get_param_importances(study)
    assert set(importances) == POINT_NAMES
    assert sum(importances.values()) == pytest.approx(1.0)
