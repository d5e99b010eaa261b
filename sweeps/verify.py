"""python -m sweeps.verify RUN TRIAL: whether a trial trained in a pack is what it gives alone."""

import json
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import ValidationError

from sweeps.certificate.comparison import Certificate, Retraining, faults
from sweeps.certificate.text import describe
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
    Train,
    adapter_distance,
    reports_until,
    solo_with_dropout_seed,
    train_packed,
    train_solo,
)
from trainables.config import TrainingSettings, TrialConfig
from trainables.data.tasks import TASKS
from trainables.errors import SweepAborted, TrialFailed
from trainables.files import write_atomic
from trainables.process import see_one_gpu

PROG = "python -m sweeps.verify"
EXIT_NOT_EQUAL = 1


@dataclass(frozen=True, kw_only=True)
class VerifyArgs:
    """Trains a trial of a sweep again and compares: python -m sweeps.verify RUN TRIAL [flags].

    Without dropout it is trained by the other engine, which must give the same. The dropout masks
    of a pack are its own, so with dropout it is trained in a pack of one, which must give the
    same, and by TRL with several seeds of dropout, which must give the like.
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
    history: TrialRecord
    adapter: Path | None
    """PEFT folder of its last report; None to leave it out."""

    @property
    def settings(self) -> TrainingSettings:
        """What it was trained with: a run of the finals has a seed of its own."""
        seed = self.history.seed
        settings = self.config.settings
        return settings if seed is None else replace(settings, seed=seed)

    @property
    def last_step(self) -> int:
        """The step of its last report."""
        return self.history.reports[-1].step


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the certificate, writes it beside the run, and returns the process's exit code."""
    args = parse(VerifyArgs, sys.argv[1:] if argv is None else argv, PROG)
    subject = find_subject(args)
    check(replace(subject.config, wandb="disabled"), is_resumed=True, has_ray=False)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as Ray's workers have it: sums round alike
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    see_one_gpu()
    for note in other_versions(RunPaths(args.run.absolute())):
        print(note)
    certificate = verify(subject, args.num_seeds)
    print(describe(certificate))
    path = RunPaths(args.run.absolute()).folder / f"verify-{args.trial}.json"
    write(path, certificate)
    print(f"numbers: {path}")
    return EXIT_NOT_EQUAL if faults(certificate) else EXIT_DONE


def find_subject(args: VerifyArgs) -> Subject:
    """The trial that the command names.

    Raises:
        SweepAborted: there is no such run or trial, or nothing of it to compare with.
    """
    paths = RunPaths(args.run.absolute())
    config = _read_config(paths)
    history = _find_trial(paths, args.trial)
    if not history.reports:
        ended = f" ({history.status}: {history.reason})" if history.status else ""
        raise SweepAborted(
            f"the trial {args.trial} has reported nothing{ended}", "verify one that has reported"
        )
    folder = checkpoint_folder(paths.trial(args.trial), history.reports[-1].step)
    if args.weights and not (folder / WEIGHTS_NAME).is_file():
        raise SweepAborted(
            f"the trial's last adapter is missing: {folder}",
            "--no-weights compares losses and scores alone",
        )
    return Subject(config, history, folder if args.weights else None)


def other_versions(paths: RunPaths) -> list[str]:
    """A line a package that was of another version when the sweep began; numbers may follow it."""
    saved = sweep_json.read(paths).get("versions", {})
    return [
        f"note: {name} is {present} here, and was {saved[name]} in the sweep"
        for name, present in versions().items()
        if saved.get(name, present) != present
    ]


def verify(subject: Subject, num_seeds: int) -> Certificate:
    """Trains the trial again as often as its certificate takes."""
    config, params = subject.config, subject.history.params
    other: Engine = "packed" if config.engine == "solo" or params.lora_dropout else "solo"
    again = retrained(subject, Retraining(engine=other))
    first = subject.settings.seed + 1
    seeds = range(first, first + num_seeds) if params.lora_dropout else ()
    return Certificate(
        trial_id=subject.history.trial_id,
        engine=config.engine,
        params=params,
        compute_dtype=config.compute_dtype,
        metric=TASKS[config.task](config.task_options).metric.name,
        eval_rows=config.eval_rows,
        recorded=subject.history.reports,
        again=again,
        seeds=tuple(
            retrained(subject, Retraining(engine="solo", seed=seed % 2**32)) for seed in seeds
        ),
    )


def retrained(subject: Subject, asked: Retraining) -> Retraining:
    """Trains as asked up to the trial's last report, in a folder that is gone afterwards."""
    history = subject.history
    print(f"training {history.trial_id} again: {asked.title}", flush=True)
    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        trial = TrialConfig(
            trial_id=history.trial_id,
            params=history.params,
            settings=subject.settings,
            folder=Path(folder) / history.trial_id,
        )
        try:
            reports = reports_until(_train(asked), trial, subject.last_step)
        except TrialFailed as failed:
            return replace(asked, failed=str(failed))
        if subject.adapter is None or asked.seed is not None:
            return replace(asked, reports=reports)
        adapter = adapter_distance(subject.adapter, reports[-1].checkpoint)
    return replace(asked, reports=reports, adapter=adapter)


def write(path: Path, certificate: Certificate) -> None:
    """All numbers of a certificate as JSON, written aside and renamed."""
    found = faults(certificate)
    content = {
        "is_equal": not found,
        "faults": found,
        "gaps": [
            {"step": step, "name": name, "gap": gap if math.isfinite(gap) else None}
            for (step, name), gap in certificate.gaps().items()
        ],
        "seeds_spread": [
            {"step": step, "name": name, "mean": mean, "deviation": deviation}
            for (step, name), (mean, deviation) in certificate.spreads().items()
        ],
        "versions": versions(),
        "git_commit": git_commit(),
        "hardware": hardware(),
        **asdict(certificate),
        "params": params_fields(certificate.params),
    }
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str)
    write_atomic(path, text + "\n")


def _train(asked: Retraining) -> Train:
    if asked.engine == "packed":
        return train_packed
    return train_solo if asked.seed is None else solo_with_dropout_seed(asked.seed)


def _read_config(paths: RunPaths) -> SweepConfig:
    if not paths.sweep_json.is_file():
        found = sorted(path.parent for path in paths.folder.parent.glob("*/sweep.json"))[-8:]
        raise SweepAborted(
            f"there is no sweep in {paths.folder}",
            f"{PROG} RUN TRIAL with RUN one of: {', '.join(map(str, found))}"
            if found
            else "python -m sweeps.run samsum --tiny makes one in runs/",
        )
    try:
        config = from_json(sweep_json.read(paths)["config"])
    except (ValidationError, KeyError, TypeError, ValueError, OSError) as damaged:
        raise SweepAborted(
            f"{paths.sweep_json} cannot be read: {' '.join(str(damaged).split())}",
            "verify with the version of this project that wrote it",
        ) from None
    return replace(config, runs_dir=str(paths.folder.parent), name=paths.folder.name)


def _find_trial(paths: RunPaths, trial_id: str) -> TrialRecord:
    histories = replay_all(read_events(paths.events)) if paths.events.is_file() else []
    for history in histories:
        if history.trial_id == trial_id:
            return history
    known = [history.trial_id for history in histories if history.reports]
    raise SweepAborted(
        f"there is no trial {trial_id!r} in {paths.folder}",
        f"name one that has reported: {', '.join(known)}" if known else "let the sweep go on first",
    )


if __name__ == "__main__":
    run_command(main)
