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
from tests.benchmarks.packing.results import commit
from tests.benchmarks.search_quality.comparison import Comparison, curves_of
from tests.benchmarks.search_quality.contenders import CONTENDERS, OURS
from tests.benchmarks.search_quality.figure import regret_svg
from tests.benchmarks.search_quality.intervals import Floats
from tests.benchmarks.search_quality.landscape import Landscape
from tests.benchmarks.search_quality.measurements import command_of, read_table
from tests.benchmarks.search_quality.methods import DEFAULT_ASHA, Task
from tests.benchmarks.search_quality.simulation import Simulation, regrets_at
from tests.benchmarks.search_quality.variants import VARIANTS
from trainables.config import Metric
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
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 < self.budget_frac <= 1:
            raise ValueError(f"budget_frac is {self.budget_frac}; it must be above 0, 1 at most")
        unknown = sorted(set(self.methods) - set(METHODS))
        if unknown:
            raise ValueError(f"methods has {unknown[0]!r}; it must name some of {list(METHODS)}")

    @property
    def ranked_by(self) -> Metric:
        """The metric with its direction."""
        return Metric(name=self.metric, mode="min" if self.metric == "eval_loss" else "max")

    @property
    def named(self) -> tuple[str, ...]:
        """Methods to compare."""
        return self.methods or tuple(VARIANTS if self.variants else CONTENDERS)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One search."""

    args: ReplayArgs
    method: str
    concurrency: int
    seed: int


def main(argv: Sequence[str]) -> int:
    """Searches, compares and writes."""
    args = parse(ReplayArgs, argv, PROG)
    comparison = run(args, command=command_of(PROG, argv))
    values = asdict(comparison)
    args.out.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    args.out.with_suffix(".md").write_text(comparison.markdown(), encoding="utf-8")
    args.out.with_suffix(".svg").write_text(regret_svg(comparison), encoding="utf-8")
    print(comparison.markdown())
    return EXIT_DONE


def run(args: ReplayArgs, command: str) -> Comparison:
    """The comparison that was asked for.

    Raises:
        SweepAborted: the table cannot be read, or lacks what a search needs.
    """
    landscape = _landscape(args)
    names = args.named
    reference = OURS if OURS in names else names[0]
    rates = landscape.space().learning_rates
    return Comparison(
        command=command,
        commit=commit(),
        table=args.table.name,
        gpu=read_table(args.table).origin.gpu,
        metric=args.metric,
        num_configurations=landscape.num_configurations,
        learning_rates=rates,
        best={**asdict(landscape.best), args.metric: landscape.mean_finals[landscape.best]},
        random_regret=landscape.mean_regret,
        full_gpu_hours=_full_gpu_s(landscape) / 3600,
        num_searches=args.searches,
        reference=reference,
        budget_fracs=_budget_fracs(args),
        curves=curves_of(_all_regrets(args), reference),
    )


def _all_regrets(args: ReplayArgs) -> dict[tuple[str, int], Floats]:
    """(searches, budgets) by method and concurrency, computed by all processes."""
    keys = list(itertools.product(args.named, args.concurrencies))
    jobs = [
        _Job(args=args, method=method, concurrency=concurrency, seed=seed)
        for seed in range(args.searches)
        for method, concurrency in keys
    ]
    found = _in_processes(jobs, args.jobs, chunk_size=len(keys))
    return {key: np.array(found[index :: len(keys)]) for index, key in enumerate(keys)}


def _in_processes(jobs: Sequence[_Job], num_processes: int, chunk_size: int) -> list[list[float]]:
    """The regrets of each search, in the order of the jobs."""
    if num_processes == 1:
        _quiet()
        return list(map(_regrets, jobs))
    os.environ["OMP_NUM_THREADS"] = "1"  # each process has one core
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_processes, mp_context=context, initializer=_quiet) as pool:
        return list(pool.map(_regrets, jobs, chunksize=chunk_size))


def _regrets(job: _Job) -> list[float]:
    """One search: the regret at each budget."""
    landscape = _landscape(job.args)
    task = Task(
        space=landscape.space(),
        metric=landscape.metric,
        max_steps=landscape.max_steps,
        concurrency=job.concurrency,
        seed=job.seed,
    )
    method = METHODS[job.method](task)
    budgets_gpu_s = [frac * _full_gpu_s(landscape) for frac in _budget_fracs(job.args)]
    simulation = Simulation(landscape, method, job.concurrency, job.seed)
    return regrets_at(simulation.run(budgets_gpu_s[-1]), budgets_gpu_s)


@cache
def _landscape(args: ReplayArgs) -> Landscape:
    """The part of the table that is searched; read once a process.

    Raises:
        SweepAborted: the part holds no configuration, or the table lacks a rung or the metric.
    """
    table = read_table(args.table)
    low, high = args.learning_rates or (0.0, math.inf)
    held = tuple(one for one in table.trained if low <= one.configuration.learning_rate <= high)
    if not held:
        raise SweepAborted(
            f"{args.table} holds no learning rate in [{low:g}, {high:g}]",
            "give other --learning-rates",
        )
    missing = sorted(set(DEFAULT_ASHA.rungs(table.rungs[-1])) - set(table.rungs))
    if missing:
        raise SweepAborted(
            f"{args.table} has no values at step {missing[0]}, where trials report",
            f"make a table with --rungs {' '.join(map(str, DEFAULT_ASHA.rungs(table.rungs[-1])))}",
        )
    names = {name for one in held for name in one.runs[0].measurements[0].metrics}
    if args.metric not in names:
        raise SweepAborted(
            f"{args.table} has no metric {args.metric!r}", f"name one of {', '.join(sorted(names))}"
        )
    return Landscape(replace(table, trained=held), args.ranked_by)


def _full_gpu_s(landscape: Landscape) -> float:
    return landscape.full_gpu_s(DEFAULT_ASHA.rungs(landscape.max_steps))


def _budget_fracs(args: ReplayArgs) -> list[float]:
    num_budgets = max(1, round(args.budget_frac / BUDGET_STEP_FRAC))
    return [args.budget_frac * index / num_budgets for index in range(1, num_budgets + 1)]


def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
