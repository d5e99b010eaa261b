"""The rows of the bench's table: what each measures, and all of them in turn."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tests.benchmarks.packing.process import make_random_model, run_in_own_process
from tests.benchmarks.packing.results import (
    Gpu,
    Results,
    Row,
    describe_args,
    open_results,
    read_commit,
)
from tests.benchmarks.packing.shapes import check_shape
from tests.trainables.prepared import prepare_rows
from trainables.config import ComputeDtype, TrainingSettings
from trainables.errors import TrialFailed

if TYPE_CHECKING:
    from tests.benchmarks.packing.job import Job

Measure = Callable[["Job"], Row]
FAILURES = (
    TrialFailed,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    OSError,
    ImportError,
    AssertionError,
)
"""What a row may end with, other people's fast settings above all; the other rows go on."""

RANKS: Mapping[str, tuple[int, ...]] = {"16": (16,), "8-64": (8, 16, 32, 64)}
"""Ranks that a pack's trials have in turn, by their name in the table."""
NUM_SHARING = 8
"""Solo processes that share the GPU."""


@dataclass(frozen=True, kw_only=True)
class BenchArgs:
    """Times solo trials and packs on one GPU, over the same rows, and writes a JSON file."""

    model_config: Path
    """Name of a shape in shapes.py, or folder with a config.json; the weights are random."""
    tokenizer: Path
    """Folder of the tokenizer that gives the rows their lengths."""
    data: Path
    """Folder with SAMSum's train, validation and test files."""
    out: Path
    """JSON file; rows are added to one that has the same GPU, commit and settings."""
    rows: tuple[Literal["solo", "solo8", "fast", "pack"], ...] = ("solo", "solo8", "fast", "pack")
    """What to measure: TRL alone, 8 such processes at once, TRL's fastest settings, packs."""
    slots: tuple[int, ...] = (1, 4, 8, 16, 32)
    """Trials of a pack; one row of the table each."""
    batch_sizes: tuple[int, ...] = (2, 8)
    """Rows in one optimizer step of a trial; one table each."""
    ranks: tuple[Literal["16", "8-64"], ...] = ("16", "8-64")
    """Ranks of a pack's trials: all 16, or 8, 16, 32 and 64 in turn. Solo trials have 16."""
    lora_dropout: float = 0.05
    """Dropout of every trial."""
    num_warm_up_steps: int = 20
    """Steps of a solo trial before its clock starts; a pack warms up over all its steps."""
    num_steps: int = 60
    """Steps that are timed."""
    least_s: float = 5.0
    """A pack's steps are repeated until they have taken so long."""
    max_length_tokens: int = 1024
    """Tokens of the longest row."""
    compute_dtype: ComputeDtype = "bfloat16"
    """Type in which NF4 weights are multiplied."""


def measure_rows(args: BenchArgs) -> Results:
    """All rows that were asked for; those that fail are named with their reason.

    Raises:
        SweepAborted: there is no such shape, or the file has rows of another GPU, commit or other
            settings.
    """
    check_shape(args.model_config)
    gpu = run_in_own_process(_measure_gpu)
    settings = describe_args(args, {"out", "rows", "slots", "batch_sizes", "ranks"})
    results = open_results(args.out, Results(gpu=gpu, commit=read_commit(), settings=settings))
    with make_random_model(args.model_config, args.tokenizer) as model:
        for name, measure, job in _list_jobs(args, model):
            try:
                row = run_in_own_process(measure, replace(job, started_s=time.perf_counter()))
            except FAILURES as failure:
                results.failures[name] = f"{type(failure).__name__}: {failure}"
            else:
                results.failures.pop(name, None)
                results.add(row)
                print(results.format_row(row), flush=True)
            results.write(args.out)
    return results


def _list_jobs(args: BenchArgs, model: Path) -> Iterator[tuple[str, Measure, "Job"]]:
    """What to measure and how, with a name for each; solo rows first."""
    # These load torch, which --help can do without.
    from tests.benchmarks.packing.pack import measure_pack
    from tests.benchmarks.packing.solo import (
        FAST_SETTINGS,
        measure_fast,
        measure_shared,
        measure_solo,
    )

    for batch_size in args.batch_sizes:
        job = _make_solo_job(args, model, batch_size)
        named = f"batch {batch_size}"
        if "solo" in args.rows:
            yield f"solo, {named}", measure_solo, job
        if "fast" in args.rows:
            for how in FAST_SETTINGS:
                yield f"fast ({how}), {named}", partial(measure_fast, how=how), job
        if "solo8" in args.rows:
            shared = replace(job, num_trials=NUM_SHARING)
            yield f"solo8, {named}", measure_shared, shared
        if "pack" in args.rows:
            for ranks, slots in itertools.product(args.ranks, args.slots):
                pack = replace(job, num_trials=slots, lora_ranks=RANKS[ranks], ranks=ranks)
                yield f"pack of {slots}, ranks {ranks}, {named}", measure_pack, pack


def _make_solo_job(args: BenchArgs, model: Path, batch_size: int) -> "Job":
    from tests.benchmarks.packing.job import Job  # loads torch, which --help can do without

    warm = args.num_warm_up_steps
    settings = TrainingSettings(
        rows_dir=prepare_rows(model, args.data),
        model=str(model),
        max_steps=warm + args.num_steps,
        rungs=(1, warm, warm + args.num_steps),
        batch_size=batch_size,
        micro_batch_size=batch_size,
        max_length_tokens=args.max_length_tokens,
        compute_dtype=args.compute_dtype,
        eval_rows=2,
        max_new_tokens=2,
    )
    return Job(
        settings=settings,
        lora_ranks=RANKS["16"],
        ranks="16",
        lora_dropout=args.lora_dropout,
        num_trials=1,
        least_s=args.least_s,
        started_s=0.0,
    )


def _measure_gpu() -> Gpu:
    from tests.benchmarks.packing.pack import measure_gpu  # loads torch, in a process of its own

    return measure_gpu()
