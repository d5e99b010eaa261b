"""python -m tests.benchmarks.search_quality replay TABLE: whole searches over a table, no GPU."""

import itertools
import json
import math
import multiprocessing
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
import optuna
import tyro

from sweeps.cli import EXIT_DONE, parse
from tests.benchmarks.packing.results import read_commit
from tests.benchmarks.search_quality.comparison import Comparison, make_curves
from tests.benchmarks.search_quality.contenders import CONTENDERS, OURS
from tests.benchmarks.search_quality.figure import draw_regret
from tests.benchmarks.search_quality.intervals import Floats
from tests.benchmarks.search_quality.landscape import Landscape
from tests.benchmarks.search_quality.measurements import format_command, read_table
from tests.benchmarks.search_quality.methods import DEFAULT_ASHA, Task
from tests.benchmarks.search_quality.simulation import Simulation, find_regrets
from tests.benchmarks.search_quality.variants import VARIANTS
from trainables.config import Metric, require
from trainables.errors import SweepAborted

PROG = "python -m tests.benchmarks.search_quality replay"
METHODS = {**CONTENDERS, **VARIANTS}
BUDGET_STEP_FRAC = 0.01
"""Between two budgets at which the regret is read."""


@dataclass(frozen=True, kw_only=True)
class ReplayArgs:
    """Searches a table many times by each method, and writes regret against GPU-hours.

    Writes a JSON file, and beside it a table (.md) and a figure (.svg).
    """

    table: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="TABLE")]
    """JSON file that python -m tests.benchmarks.search_quality table wrote."""
    out: Path
    """JSON file for the figures."""
    metric: str = "rougeLsum"
    """Score that ranks configurations; eval_loss is better when lower."""
    searches: int = 100
    """Searches of each method, with seeds 0, 1, ..."""
    concurrencies: tuple[int, ...] = (8, 32)
    """Trials that train at once."""
    learning_rates: tuple[float, float] | None = None
    """Part of the table to search; None is all of it."""
    budget_frac: float = 0.3
    """Where a search ends: share of the GPU-hours that training every configuration takes."""
    variants: tyro.conf.FlagCreatePairsOff[bool] = False
    """Compare variants of this project's search with each other, and rank them."""
    methods: tuple[str, ...] = ()
    """Names of the methods or variants to compare; none means all."""
    jobs: int = os.cpu_count() or 1
    """Processes."""

    def __post_init__(self) -> None:
        for name in ("searches", "jobs"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        is_share = 0 < self.budget_frac <= 1
        require(is_share, "budget_frac", self.budget_frac, "above 0, 1 at most")
        is_known = set(self.methods) <= set(METHODS)
        require(is_known, "methods", list(self.methods), f"some of {list(METHODS)}")

    @property
    def ranked_by(self) -> Metric:
        return Metric(name=self.metric, mode="min" if self.metric == "eval_loss" else "max")

    @property
    def named(self) -> tuple[str, ...]:
        return self.methods or tuple(VARIANTS if self.variants else CONTENDERS)


def main(argv: Sequence[str]) -> int:
    args = parse(ReplayArgs, argv, PROG)
    comparison = compare_methods(args, command=format_command(PROG, argv))
    values = asdict(comparison)
    args.out.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    args.out.with_suffix(".md").write_text(comparison.write_markdown(), encoding="utf-8")
    args.out.with_suffix(".svg").write_text(draw_regret(comparison), encoding="utf-8")
    print(comparison.write_markdown())
    return EXIT_DONE


def compare_methods(args: ReplayArgs, command: str) -> Comparison:
    """The comparison that was asked for.

    Raises:
        SweepAborted: the table cannot be read, or lacks what a search needs.
    """
    landscape = _load_landscape(args)
    names = args.named
    reference = OURS if OURS in names else names[0]
    return Comparison(
        command=command,
        commit=read_commit(),
        table=args.table.name,
        gpu=read_table(args.table).origin.gpu,
        metric=args.metric,
        num_configurations=landscape.num_configurations,
        learning_rates=landscape.space.learning_rates,
        best={**asdict(landscape.best), args.metric: landscape.mean_finals[landscape.best]},
        random_regret=landscape.mean_regret,
        full_gpu_hours=_find_full_gpu_s(landscape) / 3600,
        num_searches=args.searches,
        reference=reference,
        budget_fracs=_list_budget_fracs(args),
        curves=make_curves(_run_searches(args), reference),
    )


def _run_searches(args: ReplayArgs) -> dict[tuple[str, int], Floats]:
    """(searches, budgets) by method and concurrency, computed by all processes."""
    keys = list(itertools.product(args.named, args.concurrencies))
    searches = [(args, *key, seed) for seed in range(args.searches) for key in keys]
    if args.jobs == 1:
        _silence_optuna()
        regrets = list(itertools.starmap(_run_search, searches))
    else:
        os.environ["OMP_NUM_THREADS"] = "1"  # each process has one core
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(args.jobs, context, _silence_optuna) as pool:
            columns = zip(*searches, strict=True)
            regrets = list(pool.map(_run_search, *columns, chunksize=len(keys)))
    return {key: np.array(regrets[index :: len(keys)]) for index, key in enumerate(keys)}


def _run_search(args: ReplayArgs, method: str, concurrency: int, seed: int) -> list[float]:
    """The regret of one search at each budget."""
    landscape = _load_landscape(args)
    task = Task(
        space=landscape.space,
        metric=landscape.metric,
        max_steps=landscape.max_steps,
        concurrency=concurrency,
        seed=seed,
    )
    budgets_gpu_s = [frac * _find_full_gpu_s(landscape) for frac in _list_budget_fracs(args)]
    simulation = Simulation(landscape, METHODS[method](task), concurrency, seed)
    return find_regrets(simulation.run(budgets_gpu_s[-1]), budgets_gpu_s)


@cache
def _load_landscape(args: ReplayArgs) -> Landscape:
    """The part of the table that is searched; read once a process.

    Raises:
        SweepAborted: the part holds no configuration, or the table lacks a rung or the metric.
    """
    table = read_table(args.table)
    low, high = args.learning_rates or (0.0, math.inf)
    chosen = tuple(one for one in table.trained if low <= one.configuration.learning_rate <= high)
    if not chosen:
        raise SweepAborted(
            f"{args.table} holds no learning rate in [{low:g}, {high:g}]",
            "give other --learning-rates",
        )
    rungs = DEFAULT_ASHA.list_rungs(table.rungs[-1])
    if missing := sorted(set(rungs) - set(table.rungs)):
        raise SweepAborted(
            f"{args.table} has no values at step {missing[0]}, where trials report",
            f"make a table with --rungs {' '.join(map(str, rungs))}",
        )
    names = {name for one in chosen for name in one.runs[0].measurements[0].metrics}
    if args.metric not in names:
        raise SweepAborted(
            f"{args.table} has no metric {args.metric!r}", f"name one of {', '.join(sorted(names))}"
        )
    return Landscape(replace(table, trained=chosen), args.ranked_by)


def _find_full_gpu_s(landscape: Landscape) -> float:
    """GPU-seconds of training every configuration once, with the rungs of this project's search."""
    return landscape.sum_gpu_s(DEFAULT_ASHA.list_rungs(landscape.max_steps))


def _list_budget_fracs(args: ReplayArgs) -> list[float]:
    num_budgets = max(1, round(args.budget_frac / BUDGET_STEP_FRAC))
    return [args.budget_frac * index / num_budgets for index in range(1, num_budgets + 1)]


def _silence_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
