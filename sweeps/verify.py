"""python -m sweeps.verify RUN TRIAL: whether a trial trained in a pack is what it gives alone.

Without dropout the trial is trained again by the other engine. The dropout masks of a pack are its
own, so with dropout it is trained again in a pack of one. Either must give each recorded number
within the limit that stands beside it. With dropout it is also trained by TRL with several seeds of
dropout; the range of what they give is shown, and decides nothing.
"""

import io
import json
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from sweeps.checks import sweep_json
from sweeps.checks.environment import git_commit, hardware, versions
from sweeps.checks.preflight import check
from sweeps.cli import EXIT_DONE, parse, run_command
from sweeps.config import Engine, SweepConfig, from_json
from sweeps.records.events import params_fields, read_events
from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import TrialRecord, replay_all
from trainables.checkpoint import checkpoint_folder
from trainables.compare_engines import (
    WEIGHTS_NAME,
    AdapterDistance,
    Train,
    adapter_distance,
    reports_until,
    train_packed,
    train_solo,
)
from trainables.config import ComputeDtype, TrainingSettings, TrialConfig, TrialReport
from trainables.data.tasks import TASKS
from trainables.errors import SweepAborted, TrialFailed
from trainables.files import write_atomic
from trainables.process import see_one_gpu

PROG = "python -m sweeps.verify"
EXIT_NOT_EQUAL = 1
TABLE_WIDTH = 110
LOSS_LIMITS: dict[ComputeDtype, float] = {"float32": 1e-4, "bfloat16": 0.02}
"""Largest relative difference of two trainings with the same masks. What they round differently
stays far below it: 1e-5 over 50 steps in float32 (tests/trainables/packing/compute/test_pack.py),
2.2e-3 in bfloat16 on an H200."""
METRIC_LIMITS: dict[ComputeDtype, float] = {"float32": 1.0, "bfloat16": 3.0}
"""Largest difference of the metric (0 to 100), if it is more than one row can make: where two
tokens are nearly as likely, rounding decides how an answer goes on."""


@dataclass(frozen=True, kw_only=True)
class VerifyArgs:
    """Trains a trial of a sweep again and compares: python -m sweeps.verify RUN TRIAL [flags].

    Without dropout it is trained by the other engine, which must give the same. The dropout masks
    of a pack are its own, so with dropout it is trained in a pack of one, which must give the
    same, and by TRL with several seeds of dropout, whose range is shown beside.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder of the sweep, e.g. runs/samsum."""
    trial: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TRIAL")]
    """Id of the trial, e.g. t0003, or of a run of the finals, e.g. f0003s1."""
    num_seeds: int = 3
    """Solo trainings with other seeds of dropout, at least 2; none if the trial has no dropout."""
    weights: bool = True
    """Compare the adapter's weights too."""

    def __post_init__(self) -> None:
        if self.num_seeds < 2:
            raise ValueError(f"num_seeds is {self.num_seeds}; it must be at least 2")


@dataclass(frozen=True)
class Subject:
    """The trial that is verified."""

    config: SweepConfig
    record: TrialRecord
    adapter: Path | None
    """PEFT folder of its last report; None to leave it out."""

    @property
    def settings(self) -> TrainingSettings:
        """What it was trained with: a run of the finals has a seed of its own."""
        seed, settings = self.record.seed, self.config.settings
        return settings if seed is None else replace(settings, seed=seed)


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """One training of the trial for the comparison."""

    engine: Engine
    dropout_seed: int | None = None
    """None for the trial's own."""
    reports: list[TrialReport] = field(default_factory=list)
    adapter: AdapterDistance | None = None
    """From the trial's own adapter; None if that was not compared."""
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
        """Relative to the recorded number for losses, in points for the metric."""
        difference = abs(self.again - self.recorded)
        return difference / abs(self.recorded) if difference and self.is_loss else difference

    @property
    def is_loss(self) -> bool:
        """Whether it is no metric."""
        return self.name in ("train_loss", "eval_loss")

    @property
    def is_equal(self) -> bool:
        """Whether the difference is within the limit; NaN never is."""
        return self.limit is None or self.difference <= self.limit


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the comparison, writes it beside the run, and returns the process's exit code."""
    args = parse(VerifyArgs, sys.argv[1:] if argv is None else argv, PROG)
    paths = RunPaths(args.run.absolute())
    subject = find_subject(args)
    check(replace(subject.config, wandb="disabled"), is_resumed=True, has_ray=False)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as Ray's workers have it: sums round alike
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    see_one_gpu()
    for note in other_versions(paths):
        print(note)
    again, seeds = _retrain_all(subject, args.num_seeds)
    numbers = compare(subject, again, seeds)
    print(show_table(subject, again, numbers))
    faults = find_faults(again, seeds, numbers)
    print(f"NOT equal: {'; '.join(faults)}" if faults else summarise(numbers))
    path = paths.folder / f"verify-{args.trial}.json"
    content = {
        "is_equal": not faults,
        "faults": faults,
        "trial_id": args.trial,
        "engine": subject.config.engine,
        "params": params_fields(subject.record.params),
        "numbers": [_to_json(number) for number in numbers],
        "again": asdict(again),
        "seeds": [asdict(retraining) for retraining in seeds],
        "versions": versions(),
        "git_commit": git_commit(),
        "hardware": hardware(),
    }
    write_atomic(path, json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n")
    print(f"numbers: {path}")
    return EXIT_NOT_EQUAL if faults else EXIT_DONE


def find_subject(args: VerifyArgs) -> Subject:
    """The trial that the command names.

    Raises:
        SweepAborted: there is no such run or trial, or nothing of it to compare with.
    """
    paths = RunPaths(args.run.absolute())
    config = _read_config(paths)
    record = _find_trial(paths, args.trial)
    if record.last is None:
        ended = f" ({record.status}: {record.reason})" if record.status else ""
        raise SweepAborted(
            f"the trial {args.trial} has reported nothing{ended}", "verify one that has reported"
        )
    folder = checkpoint_folder(paths.trial(args.trial), record.last.step)
    if args.weights and not (folder / WEIGHTS_NAME).is_file():
        raise SweepAborted(
            f"the trial's last adapter is missing: {folder}",
            "--no-weights compares losses and scores alone",
        )
    return Subject(config, record, folder if args.weights else None)


def other_versions(paths: RunPaths) -> list[str]:
    """A line a package that was of another version when the sweep began; numbers may follow it."""
    saved = sweep_json.read(paths).get("versions", {})
    return [
        f"note: {name} is {present} here, and was {saved[name]} in the sweep"
        for name, present in versions().items()
        if saved.get(name, present) != present
    ]


def compare(subject: Subject, again: Retraining, seeds: Sequence[Retraining]) -> list[Number]:
    """Each number that the trial reported beside those of its retrainings."""
    config = subject.config
    metric = TASKS[config.task](config.task_options).metric.name
    limits = dict.fromkeys(("train_loss", "eval_loss"), LOSS_LIMITS[config.compute_dtype])
    limits[metric] = max(METRIC_LIMITS[config.compute_dtype], 100.0 / config.eval_rows)
    # Only a pack has a pack's masks.
    has_other_masks = config.engine == "solo" and subject.record.params.lora_dropout > 0
    again_values = _values(again.reports, metric)
    seed_values = [_values(retraining.reports, metric) for retraining in seeds]
    return [
        Number(
            step=step,
            name=name,
            recorded=value,
            again=again_values.get((step, name), math.nan),
            limit=None if has_other_masks else limits[name],
            seeds=[values[step, name] for values in seed_values if (step, name) in values],
        )
        for (step, name), value in _values(subject.record.reports, metric).items()
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


def summarise(numbers: Sequence[Number]) -> str:
    """The verdict on a trial without a fault."""
    if numbers[0].limit is None:
        return "no verdict: TRL and a pack draw other dropout masks, so nothing has to be equal"
    largest = max(number.difference for number in numbers if number.is_loss)
    return f"equal: all {len(numbers)} numbers within their limits, losses within {largest:.1e}"


def show_table(subject: Subject, again: Retraining, numbers: Sequence[Number]) -> str:
    """The numbers side by side, and how far the adapters lie apart."""
    table = Table(title=f"{subject.record.trial_id}: as recorded and trained again")
    columns = ["step", "number", f"{subject.config.engine}, recorded", again.title]
    has_seeds = any(number.seeds for number in numbers)
    seed_columns = ["solo, other dropout seeds"] if has_seeds else []
    for name in [*columns, "difference", "limit", *seed_columns]:
        table.add_column(name)
    for number in numbers:
        unit = "relative" if number.is_loss else "points"
        digits = ".1e" if number.is_loss else ".2f"
        seeds = f"{min(number.seeds):.6f} .. {max(number.seeds):.6f}" if number.seeds else ""
        table.add_row(
            str(number.step),
            number.name,
            f"{number.recorded:.6f}",
            f"{number.again:.6f}",
            f"{number.difference:{digits}} {unit}" + ("" if number.is_equal else " !"),
            "none" if number.limit is None else f"{number.limit:{digits}}",
            *([seeds] if has_seeds else []),
        )
    text = io.StringIO()
    Console(file=text, width=TABLE_WIDTH).print(table)
    distance = again.adapter
    weights = (
        "not compared"
        if distance is None
        else (
            f"matrices differ by {distance.relative:.2e} of their norm at most, numbers by "
            f"{distance.absolute:.2e}; most in {distance.matrix}"
        )
    )
    return f"{text.getvalue().rstrip()}\nweights: {weights}"


def _to_json(number: Number) -> dict[str, object]:
    """JSON has no NaN."""
    fields = asdict(number) | {"difference": number.difference}
    return fields if math.isfinite(number.again) else fields | {"again": None, "difference": None}


def _values(reports: Sequence[TrialReport], metric: str) -> dict[tuple[int, str], float]:
    return {
        (report.step, name): value
        for report in reports
        for name, value in (
            ("train_loss", report.train_loss),
            ("eval_loss", report.metrics["eval_loss"]),
            (metric, report.metrics[metric]),
        )
    }


def _retrain_all(subject: Subject, num_seeds: int) -> tuple[Retraining, list[Retraining]]:
    """The training to compare with, and those that show what dropout's seed moves."""
    has_dropout = subject.record.params.lora_dropout > 0
    engine: Engine = "packed" if subject.config.engine == "solo" or has_dropout else "solo"
    again = _retrain(subject, Retraining(engine=engine))
    first = subject.settings.seed + 1
    seeds = range(first, first + num_seeds) if has_dropout else ()
    return again, [
        _retrain(subject, Retraining(engine="solo", dropout_seed=seed % 2**32)) for seed in seeds
    ]


def _retrain(subject: Subject, planned: Retraining) -> Retraining:
    """Trains as planned up to the trial's last report, in a folder that is gone afterwards."""
    record = subject.record
    train: Train = train_packed
    if planned.engine == "solo":
        train = partial(train_solo, dropout_seed=planned.dropout_seed)
    print(f"training {record.trial_id} again: {planned.title}", flush=True)
    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        trial = TrialConfig(
            trial_id=record.trial_id,
            params=record.params,
            settings=subject.settings,
            folder=Path(folder) / record.trial_id,
        )
        try:
            reports = reports_until(train, trial, record.num_steps)
        except TrialFailed as failed:
            return replace(planned, failed=str(failed))
        if subject.adapter is None or planned.dropout_seed is not None:
            return replace(planned, reports=reports)
        adapter = adapter_distance(subject.adapter, reports[-1].checkpoint)
    return replace(planned, reports=reports, adapter=adapter)


def _read_config(paths: RunPaths) -> SweepConfig:
    if not paths.sweep_json.is_file():
        runs = sorted(path.parent for path in paths.folder.parent.glob("*/sweep.json"))[-8:]
        raise SweepAborted(
            f"there is no sweep in {paths.folder}",
            f"{PROG} RUN TRIAL with RUN one of: {', '.join(map(str, runs))}"
            if runs
            else "python -m sweeps.run samsum --tiny makes one in runs/",
        )
    try:
        config = from_json(sweep_json.read(paths)["config"])
        return replace(config, runs_dir=str(paths.folder.parent), name=paths.folder.name)
    except (ValidationError, KeyError, TypeError, ValueError, OSError) as damaged:
        raise SweepAborted(
            f"{paths.sweep_json} cannot be read: {' '.join(str(damaged).split())}",
            "verify with the version of this project that wrote it",
        ) from None


def _find_trial(paths: RunPaths, trial_id: str) -> TrialRecord:
    records = replay_all(read_events(paths.events)) if paths.events.is_file() else []
    for record in records:
        if record.trial_id == trial_id:
            return record
    known = [record.trial_id for record in records if record.reports]
    raise SweepAborted(
        f"there is no trial {trial_id!r} in {paths.folder}",
        f"name one that has reported: {', '.join(known)}" if known else "let the sweep go on first",
    )


if __name__ == "__main__":
    run_command(main)
