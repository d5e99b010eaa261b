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
from tests.benchmarks.search_quality.contenders import NUM_TRIALS, OURS, Contender, project
from tests.benchmarks.search_quality.methods import AshaOptions, Method, Task

STARTUP_TRIALS = 10


def tpe(
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


def gp_of_completed(seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's Gaussian process as it comes: it learns from completed trials only."""
    return optuna.samplers.GPSampler(
        seed=seed, n_startup_trials=STARTUP_TRIALS, warn_independent_sampling=False
    )


def startup_of_concurrency(task: Task, rounds: int) -> Method:
    """As many random trials as run at once, some times over."""
    return project(task, startup_trials=rounds * task.concurrency)


def sobol_startup(task: Task) -> Method:
    """The first trials spread over the space by a scrambled Sobol sequence."""
    return project(task, first_points=sobol_points(task, max(STARTUP_TRIALS, task.concurrency)))


def with_start_points(task: Task) -> Method:
    """The recipe's known-good settings first."""
    return project(task, first_points=[p for p in SAMSUM.start_points if task.space.contains(p)])


def with_rates(task: Task, low_share: float, high_share: float) -> Method:
    """A space that holds a part of the learning rates, given as shares of the log range."""
    low, high = task.space.learning_rates
    rates = (low * (high / low) ** low_share, low * (high / low) ** high_share)
    return project(replace(task, space=replace(task.space, learning_rates=rates)))


def sobol_points(task: Task, num_points: int) -> list[Point]:
    """Points of a scrambled Sobol sequence."""
    space = task.space
    low, high = space.learning_rates
    choices = {
        "lora_rank": space.lora_ranks,
        "alpha_over_rank": space.alphas_over_rank,
        "lora_dropout": space.lora_dropouts,
        "use_rslora": space.rsloras,
    }
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
    OURS: project,
    "start-up 5": partial(project, startup_trials=5),
    "start-up 20": partial(project, startup_trials=20),
    "start-up a third": partial(project, startup_trials=NUM_TRIALS // 3),
    "start-up concurrency": partial(startup_of_concurrency, rounds=1),
    "start-up 2 x concurrency": partial(startup_of_concurrency, rounds=2),
    "start-up Sobol": sobol_startup,
    "start points": with_start_points,
    "factor 2, 3 rungs": partial(project, asha=AshaOptions(reduction_factor=2, num_rungs=3)),
    "factor 4, 3 rungs": partial(project, asha=AshaOptions(reduction_factor=4, num_rungs=3)),
    "3 rungs": partial(project, asha=AshaOptions(num_rungs=3)),
    "2 rungs": partial(project, asha=AshaOptions(num_rungs=2)),
    "TPE of ended trials": partial(project, sampler=tpe(sees_reports=False)),
    "TPE without liar": partial(project, sampler=tpe(has_liar=False)),
    "TPE univariate": partial(project, sampler=tpe(is_multivariate=False)),
    "GP": partial(project, sampler="gp"),
    "GP of completed trials": partial(project, sampler=gp_of_completed),
    "first come": partial(project, is_together=False),
    "upper half of the rates": partial(with_rates, low_share=0.5, high_share=1.0),
    "lower three quarters of the rates": partial(with_rates, low_share=0.0, high_share=0.75),
}
"""Each differs from this project's search in what its name says."""
