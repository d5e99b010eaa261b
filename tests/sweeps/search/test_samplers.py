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
from sweeps.search.storage import open_study
from sweeps.search.study import Search, enqueue
from tests.sweeps.invented_sweep import METRIC, SPACE, make_config, point
from trainables.config import Hyperparameters

WHOLE = point(1e-3, rank=16)
PARTIAL: tuple[Point, ...] = ({"learning_rate": 5e-4}, WHOLE, {"lora_rank": 4, "use_rslora": False})
SAMPLERS: tuple[Sampler, ...] = ("tpe", "gp", "random")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/optuna.db"


def search_in(url: str, starts: tuple[Point, ...] = (), *, is_resumed: bool = False) -> Search:
    study = open_study(url, "sweep", METRIC, is_resumed=is_resumed)
    enqueue(study, starts, 100)
    return Search(study, SPACE, seed=0, num_startup_trials=3)


def test_partial_start_points_keep_what_they_name_and_have_the_rest_drawn(url: str) -> None:
    search = search_in(url, PARTIAL)
    drawn = [search.propose()[1] for _ in PARTIAL]
    for number, start in enumerate(PARTIAL):
        found = optuna.load_study(study_name="sweep", storage=url).trials[number].params
        assert SPACE.contains(found) and set(found) == POINT_NAMES
        assert {name: found[name] for name in start} == start
    assert drawn[0].learning_rate == 5e-4
    assert (drawn[2].lora_rank, drawn[2].use_rslora) == (4, False)


@pytest.mark.parametrize("num_before", range(5))
def test_partial_start_points_are_tried_once_however_often_a_sweep_is_resumed(
    url: str, num_before: int
) -> None:
    search = search_in(url, PARTIAL)
    for _ in range(num_before):
        search.propose()
    for _ in range(2):
        search = search_in(url, PARTIAL, is_resumed=True)
    for _ in range(5 - num_before):
        search.propose()
    study = optuna.load_study(study_name="sweep", storage=url)
    assert len(study.trials) == 5
    fixed = [trial.system_attrs.get("fixed_params") for trial in study.trials]
    assert fixed == [*map(dict, PARTIAL), None, None]


def test_half_drawn_partial_start_point_is_completed_by_the_next_process(url: str) -> None:
    study = open_study(url, "sweep", METRIC, is_resumed=False)
    enqueue(study, PARTIAL[:1], 100)
    study.ask()  # the process dies before it has drawn anything
    params = search_in(url, PARTIAL[:1], is_resumed=True).adopt(0)
    assert params.learning_rate == 5e-4
    (trial,) = optuna.load_study(study_name="sweep", storage=url).trials
    assert SPACE.contains(trial.params) and set(trial.params) == POINT_NAMES


def test_part_of_a_point_lies_outside_if_what_it_names_does() -> None:
    parts: tuple[Point, ...] = ({"lora_rank": 128}, {"learning_rate": 5e-4}, {"learning_rate": 1.0})
    config = make_config(start_points=parts)
    assert plan.start_points(config) == [{"learning_rate": 5e-4}]


@pytest.mark.parametrize("kind", SAMPLERS)
def test_sampler_draws_inside_of_the_space_and_trials_drawn_together_differ(kind: Sampler) -> None:
    study = optuna.create_study(direction="maximize")
    search = Search(study, SPACE, seed=0, num_startup_trials=4, sampler=kind)
    for number in range(6):
        _, params = search.propose()
        search.report(number, 1, -abs(params.learning_rate - 1e-3))
        search.finish(number, ("stopped", "completed")[number % 2], 0.0, "")
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
        search.finish(number, "stopped", None, "place 2 of 2 at step 1")
    assert set(drawn) == {("all",), ("attention",), ("q_proj", "v_proj")}
    assert kind == "random" or drawn[8:].count(("q_proj", "v_proj")) >= 4


@pytest.mark.parametrize("kind", SAMPLERS)
def test_study_of_a_version_without_target_modules_goes_on(kind: Sampler) -> None:
    study = optuna.create_study(direction="maximize")
    older = {name: values for name, values in SPACE.choices.items() if name != "target_modules"}
    for number in range(6):
        trial = study.ask()
        trial.suggest_float("learning_rate", *SPACE.learning_rates, log=True)
        for name, values in older.items():
            trial.suggest_categorical(name, values)
        trial.report(float(number), 1)
    search = Search(study, SPACE, seed=0, num_startup_trials=2, sampler=kind)
    assert search.adopt(5).target_modules == ("all",)
    assert search.propose()[1].target_modules == ("all",)


@pytest.mark.parametrize("kind", ("tpe", "gp"))
def test_sampler_that_learns_finds_the_better_half_sooner_than_chance(kind: Sampler) -> None:
    study = optuna.create_study(direction="maximize")
    search = Search(study, SPACE, seed=1, num_startup_trials=8, sampler=kind)
    rates = []
    for number in range(14):
        _, params = search.propose()
        rates.append(params.learning_rate)
        search.report(number, 1, 10.0 * (params.learning_rate > 1e-3))
        search.finish(number, "stopped", None, "place 2 of 2 at step 1")
    late = rates[8:]
    assert sum(rate > 1e-3 for rate in late) >= len(late) - 1


def test_random_sampler_learns_nothing() -> None:
    def drawn(score: Callable[[Hyperparameters], float]) -> list[Hyperparameters]:
        search = Search(optuna.create_study(), SPACE, 0, num_startup_trials=1, sampler="random")
        found = []
        for number in range(6):
            _, params = search.propose()
            search.report(number, 1, score(params))
            search.finish(number, "completed", score(params), "")
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


def test_plain_optuna_reads_the_study_of_a_sweep(url: str) -> None:
    """Importance and the best trial come from completed trials, whatever stopped ones reached."""
    search = search_in(url, PARTIAL)
    for number, status in enumerate(["completed", "stopped", "failed", "completed", "stopped"]):
        _, params = search.propose()
        value = 10.0 + 1e3 * params.learning_rate
        search.report(number, 1, 90.0 if status == "stopped" else value / 2)
        if status == "completed":
            search.report(number, 9, value)
        search.finish(number, status, value, "")  # type: ignore[arg-type]
    study = optuna.load_study(study_name="sweep", storage=url)
    completed = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert [trial.number for trial in completed] == [0, 3]
    assert study.best_trial.number == max(completed, key=lambda trial: trial.value or 0).number
    assert study.best_value == study.best_trial.intermediate_values[9] < 90.0
    importances = optuna.importance.get_param_importances(study)
    assert set(importances) == POINT_NAMES
    assert sum(importances.values()) == pytest.approx(1.0)
