"""python -m sweeps.verify RUN TRIAL: whether a trial trained in a pack is what it gives alone."""

import math
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table

from cluster.gpus import find_oldest_gpu, list_visible_gpus
from sweeps.checks import sweep_json
from sweeps.checks.environment import describe_hardware, list_versions, read_git_commit
from sweeps.checks.preflight import check, find_unpacked, has_delta_kernels
from sweeps.cli import EXIT_DONE, JsonFlag, Result, parse, run_command
from sweeps.command_line.consoles import SafeConsole
from sweeps.config import Engine, SweepConfig
from sweeps.records.events import make_params_fields
from sweeps.records.paths import RunPaths, find_run
from sweeps.records.run import read_record
from sweeps.records.trial_record import TrialRecord, find_reported
from trainables.checkpoint import get_checkpoint_folder
from trainables.checkpoint_storage import fetch_checkpoint
from trainables.compare_engines import WEIGHTS_NAME, measure_adapter_distances, train_until
from trainables.config import ComputeDtype, TrialConfig, TrialReport, require
from trainables.data.rows import Row, select_rung_rows
from trainables.data.tasks import TASKS
from trainables.errors import SweepAborted, TrialFailed
from trainables.files import write_json
from trainables.metrics.eval_result import read_answers
from trainables.metrics.registry import find_scale, format_score
from trainables.process import train_in_this_process

PROG = "python -m sweeps.verify"
EXIT_NOT_EQUAL = 1
TABLE_WIDTH = 110
LOSSES = ("train_loss", "eval_loss")
LOSS_LIMITS: dict[ComputeDtype, float] = {"float32": 1e-4, "bfloat16": 0.02}
"""Largest relative difference of two trainings with the same masks. What they round differently
stays far below it: 1e-5 over 50 steps in float32 (tests/trainables/packing/compute/test_pack.py),
2.2e-3 in bfloat16 on an H200."""
METRIC_LIMITS: dict[ComputeDtype, float] = {"float32": 0.01, "bfloat16": 0.03}
"""Largest difference of the metric as a share of its scale, if it is more than one row can make:
where two tokens are nearly as likely, rounding decides how an answer goes on."""


@dataclass(frozen=True, kw_only=True)
class VerifyArgs:
    """Trains a trial of a sweep again and compares: python -m sweeps.verify RUN TRIAL [flags].

    Without dropout it is trained by the other engine, which must give each recorded number within
    the limit beside it. The dropout masks of a pack are its own, so with dropout a pack of one must
    do so, and it is also trained by TRL with several seeds of dropout, whose range is shown and
    decides nothing. A model that packs cannot train, or not here, is trained by TRL again, with
    the same masks.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder of the sweep, e.g. runs/samsum."""
    trial: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TRIAL")]
    """Id of the trial, e.g. t0003, or of a run of the finals, e.g. f0003s1."""
    num_seeds: int = 3
    """Solo trainings with other seeds of dropout, at least 2; none if the trial has no dropout."""
    weights: bool = True
    """Compare the adapter's weights too."""
    json: JsonFlag = False

    def __post_init__(self) -> None:
        require(self.num_seeds >= 2, "num_seeds", self.num_seeds, "at least 2")


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """One training of the trial for the comparison."""

    engine: Engine
    dropout_seed: int | None = None
    """None for the trial's own."""
    reports: list[TrialReport] = field(default_factory=list)
    distances: dict[str, float] | None = None
    """By matrix, from the trial's own adapter; None if that was not compared."""
    failed: str = ""
    """Why it could not be done, or empty."""

    @property
    def title(self) -> str:
        """What it is, for people."""
        what = "pack of one" if self.engine == "packed" else "solo"
        return what if self.dropout_seed is None else f"{what}, dropout seed {self.dropout_seed}"


@dataclass(frozen=True, kw_only=True)
class Number:
    """A loss or the metric at one step, as recorded and trained again."""

    step: int
    name: str
    recorded: float
    again: float
    """NaN if the training did not report it."""
    limit: float | None
    """Largest difference that counts as none; None where other dropout masks forbid a verdict."""
    seeds: list[float]
    """What solo trainings with other seeds of dropout gave."""

    @property
    def difference(self) -> float:
        """Relative to the recorded number for losses, in the metric's own unit for scores."""
        difference = abs(self.again - self.recorded)
        is_relative = difference and self.name in LOSSES
        return difference / abs(self.recorded) if is_relative else difference

    @property
    def is_equal(self) -> bool:
        """Whether the difference is within the limit; NaN never is."""
        return self.limit is None or self.difference <= self.limit


def main(argv: Sequence[str] | None = None) -> Result:
    """Prints the comparison, writes it beside the run, and returns it."""
    args = parse(VerifyArgs, argv, PROG)
    paths = find_run(args.run)
    config = sweep_json.read_config(paths)
    record = find_reported(paths, args.trial)
    adapter = get_checkpoint_folder(paths.get_trial_folder(args.trial), record.num_steps)
    fetch_checkpoint(config.storage, adapter)
    config = replace(config, checkpoints=None)  # where what is trained again has no place
    if args.weights and not (adapter / WEIGHTS_NAME).is_file():
        fix = "--no-weights compares losses and scores alone"
        raise SweepAborted(f"the trial's last adapter is missing: {adapter}", fix)
    checked = check(replace(config, wandb="disabled", track="none"), is_resumed=True, has_ray=False)
    train_in_this_process({"OMP_NUM_THREADS": "1"})  # as Ray's workers have it
    for note in find_other_versions(paths):
        print(note)
    has_dropout = record.params.lora_dropout > 0
    oldest = find_oldest_gpu(list_visible_gpus())
    has_kernels = has_delta_kernels(config, checked.model, oldest)
    can_pack = has_kernels and find_unpacked(checked.model) is None
    wants_pack = config.engine == "solo" or has_dropout
    engine: Engine = "packed" if can_pack and wants_pack else "solo"
    seed = config.seed if record.seed is None else record.seed  # a run of the finals has its own
    settings, folder = replace(config.settings, seed=seed), paths.get_trial_folder(args.trial)
    trial = TrialConfig(trial_id=args.trial, params=record.params, settings=settings, folder=folder)
    retrain = partial(_retrain_trial, trial, record.num_steps)
    again = retrain(Retraining(engine=engine), adapter if args.weights else None)
    seeds = [
        retrain(Retraining(engine="solo", dropout_seed=(seed + offset) % 2**32))
        for offset in range(1, args.num_seeds * has_dropout + 1)
    ]
    numbers = _compare_numbers(config, record, again, seeds, adapter, checked.splits.validation)
    _print_table(config, record, again, numbers)
    faults = find_faults(again, seeds, numbers)
    if faults:
        print(f"NOT equal: {'; '.join(faults)}")
    elif numbers[0].limit is None:
        print("no verdict: TRL and a pack draw other dropout masks, so nothing has to be equal")
    else:
        largest = max(n.difference for n in numbers if n.name in LOSSES)
        print(f"equal: all {len(numbers)} numbers within their limits, losses within {largest:.1e}")
    path = paths.folder / f"verify-{args.trial}.json"
    fields = [asdict(n) | {"difference": n.difference} for n in numbers]
    content = {
        "is_equal": not faults,
        "faults": faults,
        "trial_id": args.trial,
        "engine": config.engine,
        "params": make_params_fields(record.params),
        "numbers": [{k: None if v != v else v for k, v in f.items()} for f in fields],  # no NaN
        "again": asdict(again),
        "seeds": [asdict(retraining) for retraining in seeds],
        "versions": list_versions(),
        "git_commit": read_git_commit(),
        "hardware": describe_hardware(),
    }
    write_json(path, content)
    print(f"numbers: {path}")
    return Result({**content, "file": path}, EXIT_NOT_EQUAL if faults else EXIT_DONE)


def find_other_versions(paths: RunPaths) -> list[str]:
    """A line a package that was of another version when the sweep began; numbers may follow it."""
    saved = read_record(paths).get("versions", {})
    return [
        f"note: {name} is {present} here, and was {saved[name]} in the sweep"
        for name, present in list_versions().items()
        if saved.get(name, present) != present
    ]


def find_faults(
    again: Retraining, seeds: Sequence[Retraining], numbers: Sequence[Number]
) -> list[str]:
    """Why the trial is not what it gives alone; empty if it is."""
    failed = [f"{r.title} failed: {r.failed}" for r in (again, *seeds) if r.failed]
    unequal = [number for number in numbers if not number.is_equal]
    if failed or not unequal:
        return failed
    first = unequal[0]
    return [
        f"{len(unequal)} of {len(numbers)} numbers differ by more than their limit, first "
        f"{first.name} at step {first.step} by {first.difference:.2g}, limit {first.limit:.2g}"
    ]


def _retrain_trial(
    trial: TrialConfig, last_step: int, planned: Retraining, adapter: Path | None = None
) -> Retraining:
    """Trains as planned up to the trial's last report, in a folder that is gone afterwards."""
    print(f"training {trial.trial_id} again: {planned.title}", flush=True)
    with tempfile.TemporaryDirectory(prefix="verify-") as tmp:
        trial = replace(trial, folder=Path(tmp) / trial.trial_id)
        seed = planned.dropout_seed
        try:
            reports = train_until(planned.engine, trial, last_step, dropout_seed=seed)
        except TrialFailed as failed:
            return replace(planned, failed=str(failed))
        last = reports[-1].checkpoint
        distances = None if adapter is None else measure_adapter_distances(adapter, last)
    return replace(planned, reports=reports, distances=distances)


def _compare_numbers(
    config: SweepConfig,
    record: TrialRecord,
    again: Retraining,
    seeds: Sequence[Retraining],
    adapter: Path,
    validation: Sequence[Row],
) -> list[Number]:
    """Each number that the trial reported beside those of its retrainings."""
    metric = TASKS[config.task](config.task_options).metric.name
    scores = [report.metrics[metric] for report in record.reports]
    with suppress(OSError, ValueError):  # single rows show more of a metric's scale than means
        scores += read_answers(adapter).row_scores.get(metric, ())

    def find_limit(step: int, name: str) -> float:
        if name in LOSSES:
            return LOSS_LIMITS[config.compute_dtype]
        num_rows = len(select_rung_rows(validation, config.settings, step))
        return find_metric_limit(config.compute_dtype, num_rows, name, scores)

    # Only a pack has a pack's masks.
    has_other_masks = config.engine != again.engine and record.params.lora_dropout > 0
    recorded, retrained, *of_seeds = (
        {
            (report.step, name): {**report.metrics, "train_loss": report.train_loss}[name]
            for report in reports
            for name in (*LOSSES, metric)
        }
        for reports in (record.reports, again.reports, *(r.reports for r in seeds))
    )
    return [
        Number(
            step=step,
            name=name,
            recorded=value,
            again=retrained.get((step, name), math.nan),
            limit=None if has_other_masks else find_limit(step, name),
            seeds=[values[step, name] for values in of_seeds if (step, name) in values],
        )
        for (step, name), value in recorded.items()
    ]


def find_metric_limit(
    compute_dtype: ComputeDtype, num_rows: int, metric: str, scores: Sequence[float]
) -> float:
    """Largest difference of the metric that counts as none.

    Args:
        num_rows: rows that were scored.
        scores: by it, of rows too; they tell the scale of a metric of the user's own.
    """
    share = max(METRIC_LIMITS[compute_dtype], 1 / num_rows)
    return share * find_scale(metric, scores)


def _print_table(
    config: SweepConfig, record: TrialRecord, again: Retraining, numbers: Sequence[Number]
) -> None:
    """The numbers side by side, and how far the adapters lie apart."""
    has_seeds = any(number.seeds for number in numbers)
    columns = ["step", "number", f"{config.engine}, recorded", again.title, "difference", "limit"]
    columns += ["solo, other dropout seeds"] * has_seeds
    table = Table(*columns, title=f"{record.trial_id}: as recorded and trained again")
    for n in numbers:
        seeds = f"{min(n.seeds):.6f} .. {max(n.seeds):.6f}" if n.seeds else ""
        cells = [str(n.step), n.name, f"{n.recorded:.6f}", f"{n.again:.6f}"]
        unit = " relative" * (n.name in LOSSES)
        cells += [f"{_format_difference(n, n.difference)}{unit}" + ("" if n.is_equal else " !")]
        cells += ["none" if n.limit is None else _format_difference(n, n.limit)]
        table.add_row(*cells, *[seeds] * has_seeds)
    SafeConsole(sys.stdout, width=TABLE_WIDTH).print(table)
    weights = "not compared"
    if again.distances is not None:
        matrix, distance = max(again.distances.items(), key=lambda item: item[1])
        weights = f"matrices differ by {distance:.2e} of their norm at most; most in {matrix}"
    print(f"weights: {weights}")


def _format_difference(number: Number, difference: float) -> str:
    if number.name in LOSSES:
        return f"{difference:.1e}"
    return format_score(number.name, difference, (number.recorded, number.limit))


if __name__ == "__main__":
    run_command(main)
