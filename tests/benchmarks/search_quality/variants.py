"""Variants of this project's search, for choosing its defaults on measured grounds."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import optuna
from scipy.stats import qmc  # type: ignore[import-untyped]

from search_spaces.lora import Point
from search_spaces.presets import SAMSUM
from sweeps.search.report_sampler import ReportSampler
from sweeps.search.study import SamplerMaker
from tests.benchmarks.search_quality.contenders import NUM_TRIALS, OURS, Contender, make_search
from tests.benchmarks.search_quality.methods import AshaOptions, Method, Task

STARTUP_TRIALS = 10


def make_tpe_maker(
    *, is_multivariate: bool = True, has_liar: bool = True, sees_reports: bool = True
) -> SamplerMaker:
    """TPE as the project uses it, with one of its settings another way."""

    def make(seed: int) -> optuna.samplers.BaseSampler:
        sampler = optuna.samplers.TPESampler(
            multivariate=is_multivariate,
            constant_liar=has_liar,
            n_startup_trials=STARTUP_TRIALS,
            seed=seed,
        )
        return ReportSampler(sampler) if sees_reports else sampler

    return make


def make_plain_gp(seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's Gaussian process as it comes: it learns from completed trials only."""
    return optuna.samplers.GPSampler(
        seed=seed, n_startup_trials=STARTUP_TRIALS, warn_independent_sampling=False
    )


def start_as_many_as_run(task: Task, rounds: int) -> Method:
    """As many random trials as run at once, some times over."""
    return make_search(task, startup_trials=rounds * task.concurrency)


def start_by_sobol(task: Task) -> Method:
    """The first trials spread over the space by a scrambled Sobol sequence."""
    return make_search(
        task, first_points=draw_sobol_points(task, max(STARTUP_TRIALS, task.concurrency))
    )


def start_by_recipe(task: Task) -> Method:
    """The recipe's known-good settings first."""
    return make_search(
        task, first_points=[p for p in SAMSUM.start_points if task.space.contains(p)]
    )


def narrow_rates(task: Task, low_share: float, high_share: float) -> Method:
    """A space that holds a part of the learning rates, given as shares of the log range."""
    low, high = task.space.learning_rates
    rates = (low * (high / low) ** low_share, low * (high / low) ** high_share)
    return make_search(replace(task, space=replace(task.space, learning_rates=rates)))


def draw_sobol_points(task: Task, num_points: int) -> list[Point]:
    space = task.space
    low, high = space.learning_rates
    choices = space.choices
    del choices["target_modules"]  # a table has one set of them
    sobol = qmc.Sobol(1 + len(choices), rng=task.seed)
    rows = sobol.random_base2((num_points - 1).bit_length())[:num_points]
    return [
        {
            "learning_rate": float(low * (high / low) ** row[0]),
            **{
                name: values[int(share * len(values))]
                for (name, values), share in zip(choices.items(), row[1:], strict=True)
            },
        }
        for row in rows
    ]


VARIANTS: Mapping[str, Contender] = {
    OURS: make_search,
    "start-up 5": partial(make_search, startup_trials=5),
    "start-up 20": partial(make_search, startup_trials=20),
    "start-up a third": partial(make_search, startup_trials=NUM_TRIALS // 3),
    "start-up concurrency": partial(start_as_many_as_run, rounds=1),
    "start-up 2 x concurrency": partial(start_as_many_as_run, rounds=2),
    "start-up Sobol": start_by_sobol,
    "start points": start_by_recipe,
    "factor 2, 3 rungs": partial(make_search, asha=AshaOptions(reduction_factor=2, num_rungs=3)),
    "factor 4, 3 rungs": partial(make_search, asha=AshaOptions(reduction_factor=4, num_rungs=3)),
    "3 rungs": partial(make_search, asha=AshaOptions(num_rungs=3)),
    "2 rungs": partial(make_search, asha=AshaOptions(num_rungs=2)),
    "TPE of ended trials": partial(make_search, sampler=make_tpe_maker(sees_reports=False)),
    "TPE without liar": partial(make_search, sampler=make_tpe_maker(has_liar=False)),
    "TPE univariate": partial(make_search, sampler=make_tpe_maker(is_multivariate=False)),
    "GP": partial(make_search, sampler="gp"),
    "GP of completed trials": partial(make_search, sampler=make_plain_gp),
    "first come": partial(make_search, is_together=False),
    "upper half of the rates": partial(narrow_rates, low_share=0.5, high_share=1.0),
    "lower three quarters of the rates": partial(narrow_rates, low_share=0.0, high_share=0.75),
}
"""Each differs from this project's search in what its name says."""
