"""The methods by name: this project's search and those that it is measured against."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from search_spaces.lora import Point
from sweeps.config import Sampler
from sweeps.search.study import SamplerMaker, Search, choose_num_startup_trials
from tests.benchmarks.search_quality.methods import (
    DEFAULT_ASHA,
    AshaOptions,
    Method,
    PlainTpe,
    ProjectSearch,
    Task,
    make_study,
)

Contender = Callable[[Task], Method]

OURS = "this project"
NUM_TRIALS = 64
"""Trials of the sweep that a search stands for, where a default depends on it; a replay itself
ends with its budget."""


def make_search(
    task: Task,
    *,
    asha: AshaOptions = DEFAULT_ASHA,
    sampler: Sampler | SamplerMaker = "tpe",
    startup_trials: int | None = None,
    first_points: Sequence[Point] = (),
    is_together: bool = True,
) -> ProjectSearch:
    """This project's search; what is not given is its default.

    Args:
        task: what is searched.
        asha: rungs, and how many go on.
        sampler: see sweeps.search.study.Search.
        startup_trials: random trials first; None is the default for the concurrency.
        first_points: are tried before any that is drawn.
        is_together: decide the trials of one pack together; else in the order of their arrival.
    """
    if startup_trials is None:
        startup_trials = choose_num_startup_trials(NUM_TRIALS)
    study = make_study(task.metric)
    search = Search(study, task.space, task.seed, startup_trials, sampler)
    search.restore((), task.metric, first_points)
    return ProjectSearch(task, search, asha, is_together=is_together)


def make_stock_ray(task: Task) -> Method:
    """OptunaSearch and ASHAScheduler of Ray Tune."""
    from tests.benchmarks.search_quality.stock_ray import (
        StockRay,  # loads Ray, which --help can do without
    )

    return StockRay(task)


CONTENDERS: Mapping[str, Contender] = {
    OURS: make_search,
    "OptunaSearch + ASHAScheduler": make_stock_ray,
    "random + ASHA": partial(make_search, sampler="random"),
    "TPE, no stopping": PlainTpe,
}
