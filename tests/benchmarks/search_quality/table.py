"""python -m tests.benchmarks.search_quality table: trains a grid of the LoRA space in packs."""

import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from search_spaces.presets import SAMSUM, SAMSUM_TINY
from sweeps.cli import EXIT_DONE, parse
from sweeps.config import resolve_data, resolve_model
from sweeps.recipes import samsum
from tests.benchmarks.packing.results import read_commit
from tests.benchmarks.search_quality.grid import Configuration, Grid, list_log_levels
from tests.benchmarks.search_quality.measurements import Log, Origin, format_command, write_table
from trainables.config import TaskOptions, TrainingSettings, require
from trainables.data.rows import Splits
from trainables.data.tasks import TASKS
from trainables.errors import SweepAborted
from trainables.models.model_facts import read_model_facts
from trainables.models.weights import check_weights
from trainables.packing.sizing.choose import MOST_SLOTS, choose_capacity

if TYPE_CHECKING:
    from tests.benchmarks.search_quality.training import (
        Trainer,  # loads torch, which --help can do without
    )

PROG = "python -m tests.benchmarks.search_quality table"
LOWEST_STEPS_FRAC = 1 / 81
"""Share of the budget below which no rung is worth its evaluation: warm-up alone takes 1/20."""


@dataclass(frozen=True, kw_only=True)
class TableArgs:
    """Trains every configuration of a grid to the end, and writes what each rung measured.

    Settings are those of the recipe samsum. Every measurement is appended to a log beside the
    table; the same command goes on with it.
    """

    out: Path
    """JSON file of the table; its log is beside it, with .log.jsonl in place of the suffix."""
    model: str | None = None
    """Hub id or folder of a Qwen causal language model; None is the recipe's."""
    data: str | None = None
    """Folder with SAMSum's files; None is the recipe's."""
    tiny: tyro.conf.FlagCreatePairsOff[bool] = False
    """The bundled model and rows, and a grid of four configurations: no GPU, a minute."""
    seeds: int = 2
    """Trainings of every configuration, with seeds 0, 1, ..."""
    learning_rates: tuple[float, float] | None = None
    """Lowest and highest learning rate; None is the default space's."""
    levels: int = 8
    """Learning rates, spaced evenly on a log scale."""
    lora_ranks: tuple[int, ...] | None = None
    """Ranks; None is the default space's."""
    alphas_over_rank: tuple[float, ...] | None = None
    """Values of alpha / rank; None is the default space's."""
    lora_dropouts: tuple[float, ...] = (0.0, 0.1)
    """Dropout probabilities."""
    rungs: tuple[int, ...] | None = None
    """Steps at which runs are evaluated, the last at the full budget; None is every rung of three
    levels under reduction factors 2, 3 and 4, and of four levels under 3."""
    eval_rows: int | None = None
    """Validation rows of the last evaluation; None is the recipe's."""
    low_rung_eval_rows: int | None = None
    """Validation rows of the others; None is the recipe's."""
    slots: int = MOST_SLOTS
    """Trainings that go in step; fewer if they do not fit."""
    limit_s: float = math.inf
    """Seconds after which it ends with what it has; a cohort that would not end in time is not
    begun."""

    def __post_init__(self) -> None:
        for name in ("seeds", "slots"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(self.limit_s > 0, "limit_s", self.limit_s, "above 0")
        require(self.levels >= 2, "levels", self.levels, "at least 2")


def main(argv: Sequence[str]) -> int:
    """Trains what is missing, and writes the table of what is complete."""
    started_s = time.perf_counter()
    args = parse(TableArgs, argv, PROG)
    try:
        settings, grid = make_settings(args), make_grid(args)
    except ValueError as refused:
        raise SweepAborted(str(refused), f"{PROG} --help") from None
    splits = _load_rows(args, settings)
    from tests.benchmarks.search_quality.training import Trainer  # loads torch, unlike --help
    from trainables.models.memory import get_gpu_gib
    from trainables.packing.service.loading import get_device_name

    log = Log(args.out.with_suffix(".log.jsonl"), _make_origin(args, settings, get_device_name()))
    log.begin(format_command(PROG, argv), read_commit())
    facts, rank = read_model_facts(settings.model), max(grid.lora_ranks)
    capacity = choose_capacity(facts, settings, rank, get_gpu_gib(), args.slots)
    wanted = [(one, seed) for one in _order_configurations(grid) for seed in range(args.seeds)]
    missing = [
        (one, seed) for one, seed in wanted if not log.is_complete(one, seed, settings.max_steps)
    ]
    if missing:
        trainer = Trainer(settings, splits, capacity, log.add)
        print(f"{len(missing)} of {len(wanted)} trainings, {trainer.cohort_size} at once")
        for line in _train_missing(trainer, missing, started_s, args.limit_s):
            print(line, flush=True)
    table = log.make_table(range(args.seeds), settings.max_steps)
    write_table(args.out, table)
    print(f"{len(table.trained)} of {len(grid.list_configurations())} configurations: {args.out}")
    return EXIT_DONE


def _train_missing(
    trainer: "Trainer",
    missing: Sequence[tuple[Configuration, int]],
    started_s: float,
    limit_s: float,
) -> Iterator[str]:
    """Cohort after cohort, as long as the next one would end in time."""
    size, last_s = trainer.cohort_size, 0.0
    for first in range(0, len(missing), size):
        begun_s = time.perf_counter()
        if begun_s + last_s > started_s + limit_s:
            yield f"{limit_s:g} s are over; the same command goes on"
            return
        is_done = trainer.train(missing[first : first + size], started_s + limit_s)
        last_s = time.perf_counter() - begun_s
        num_done = min(first + size, len(missing)) if is_done else first
        yield f"{num_done} of {len(missing)} trainings; {last_s:.1f} s for the last cohort"


def make_settings(args: TableArgs) -> TrainingSettings:
    """The recipe's settings, with the rungs and rows that were asked for."""
    recipe = samsum(args.tiny)
    names = ("eval_rows", "low_rung_eval_rows")
    rows = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    model = resolve_model(args.model) if args.model else recipe.model
    settings = replace(recipe.settings, model=model, **rows)
    if args.tiny:
        settings = replace(settings, max_steps=3, rungs=(3,), eval_rows=4, eval_batch_size=4)
    rungs = args.rungs or list_standard_rungs(settings.max_steps)
    return replace(settings, rungs=rungs)


def list_standard_rungs(max_steps: int) -> tuple[int, ...]:
    """Rungs of all schedules that replay compares: three levels by 2, 3 or 4, and four by 3."""
    levels = [(2, 3), (3, 4), (4, 3)]
    steps = {round(max_steps / factor**k) for factor, most in levels for k in range(most)}
    return tuple(sorted(step for step in steps if step >= max(1, max_steps * LOWEST_STEPS_FRAC)))


def make_grid(args: TableArgs) -> Grid:
    if args.tiny:
        space = SAMSUM_TINY.space
        return Grid(
            learning_rates=list_log_levels(space.learning_rates, 2),
            lora_ranks=space.lora_ranks[:2],
            alphas_over_rank=(1.0,),
            lora_dropouts=(0.0,),
        )
    return Grid(
        learning_rates=list_log_levels(
            args.learning_rates or SAMSUM.space.learning_rates, args.levels
        ),
        lora_ranks=args.lora_ranks or SAMSUM.space.lora_ranks,
        alphas_over_rank=args.alphas_over_rank or SAMSUM.space.alphas_over_rank,
        lora_dropouts=args.lora_dropouts,
    )


def _order_configurations(grid: Grid) -> list[Configuration]:
    """In a fixed random order, so that what is done at any time is spread over the grid; learning
    rates outside the default space come last."""
    configurations = grid.list_configurations()
    random.Random(0).shuffle(configurations)
    low, high = SAMSUM.space.learning_rates
    return sorted(configurations, key=lambda one: not low <= one.learning_rate <= high)


def _resolve_data(args: TableArgs) -> str | None:
    return resolve_data(args.data) if args.data else samsum(args.tiny).data


def _load_rows(args: TableArgs, settings: TrainingSettings) -> Splits:
    """The rows, once all is checked that can be wrong before a GPU is used.

    Raises:
        SweepAborted: the model or the data is not there, or the table cannot be written.
    """
    check_weights(settings.model, read_model_facts(settings.model))
    splits = TASKS["samsum"](TaskOptions()).load(_resolve_data(args))
    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.with_suffix(".log.jsonl").open("a").close()
    except OSError as refused:
        raise SweepAborted(
            f"{args.out} cannot be written: {refused.strerror}", "give another --out"
        ) from None
    return splits


def _make_origin(args: TableArgs, settings: TrainingSettings, gpu: str) -> Origin:
    data = _resolve_data(args)
    values = asdict(settings) | {"task": "samsum", "model": Path(settings.model).name}
    values["data"] = None if data is None else Path(data).name
    del values["seed"], values["rows_dir"], values["storage"]
    return Origin(settings=json.loads(json.dumps(values)), gpu=gpu, torch=version("torch"))
