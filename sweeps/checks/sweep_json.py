"""sweep.json and the run's folder: what was asked for, on what, and who works on it now."""

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sweeps.checks import preflight
from sweeps.checks.digests import model_record, rows_record
from sweeps.checks.metric_record import check_metric, metric_record
from sweeps.config import SweepConfig, absolute, from_json, to_json
from sweeps.records.events import read_events
from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import replay
from sweeps.search.study import without_password
from trainables.data.prepared_rows import write_rows
from trainables.data.rows import Splits
from trainables.errors import SweepAborted
from trainables.files import write_atomic

CHANGEABLE = frozenset(
    {"num_trials", "finals", "num_finalists", "num_final_seeds", "bertscore", "bertscore_encoder",
     "bertscore_layer", "slots_per_gpu", "gpus", "time_budget", "gpu_hours", "estimate",
     "max_failures", "runs_dir", "name", "wandb", "wandb_project", "wandb_entity",
     "study_storage"}
)  # fmt: skip
"""Fields that a resume may change without making its trials incomparable."""

_HIDDEN = ":***@"
"""What without_password leaves of a password."""


@dataclass(frozen=True)
class Identity:
    """What stays the same when a run's folder is moved or renamed."""

    sweep_id: str
    """Unique among all sweeps."""
    name: str
    """The name that the sweep began with: that of its study and of its group in W&B."""


def saved_config(asked: SweepConfig, *, is_named: bool) -> SweepConfig:
    """The config of the run to resume, at the place where it lies now.

    Raises:
        SweepAborted: no name was given, there is no such run, or it is another recipe's.
    """
    paths = RunPaths.of(asked.runs_dir, asked.name)
    found = sorted(path.parent.name for path in Path(asked.runs_dir).glob("[!.]*/sweep.json"))
    runs = f"--name with one of: {', '.join(found[-8:])}" if found else "begin a new sweep"
    is_there = os.path.isfile(paths.sweep_json)
    if not is_named and not is_there:  # a recipe may give a fixed name
        raise SweepAborted("--resume needs the name of the sweep", runs)
    if not is_there:
        raise SweepAborted(f"there is no sweep {asked.name!r} in {asked.runs_dir}", runs)
    try:
        content = read(paths)
        config = from_json(content["config"])
        _ = content["sweep_id"], content["name"], content["digests"]["rows"]
    except (ValidationError, KeyError, TypeError, ValueError, OSError) as damaged:
        has_key = not isinstance(damaged, KeyError)
        reason = " ".join(str(damaged).split()) if has_key else f"it has no {damaged}"
        raise SweepAborted(
            f"{paths.sweep_json} cannot be read: {reason}",
            "resume with the version of this project that wrote it, or begin a new sweep",
        ) from None
    config = replace(config, runs_dir=asked.runs_dir, name=asked.name)
    # a recipe file may have been moved since, so that its name alone counts
    if Path(config.recipe).name != Path(asked.recipe).name:
        raise SweepAborted(
            f"the sweep {asked.name!r} is of the recipe {config.recipe}, not of {asked.recipe}",
            preflight.resume_command(config),
        )
    return config


def check_resumable(saved: SweepConfig, asked: SweepConfig) -> None:
    """Refuses a resume that would mix trials of two different sweeps.

    Raises:
        SweepAborted: a field differs that decides what a trial's score means, or the password
            of the study storage was not given again.
    """
    asked = absolute(asked)
    changed = _differing(saved, asked, CHANGEABLE | {"space", "task_options"})
    changed += _differing(saved.space, asked.space)
    changed += _differing(saved.task_options, asked.task_options)
    if changed:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in changed)
        raise SweepAborted(
            f"a resumed sweep keeps its settings, but these differ: {flags}",
            "leave them out, or begin a new sweep with another --name",
        )
    if asked.study_storage and _HIDDEN in asked.study_storage:
        raise SweepAborted(
            "the study storage needs its password, which sweep.json does not keep",
            f"give it again: --study-storage {asked.study_storage.replace(_HIDDEN, ':PASSWORD@')}",
        )


def _differing(one: Any, other: Any, left_out: frozenset[str] = frozenset()) -> list[str]:
    names = [f.name for f in fields(one) if f.name not in left_out]
    return [name for name in names if getattr(one, name) != getattr(other, name)]


@contextmanager
def opened(
    config: SweepConfig, found: preflight.Preflight, *, is_resumed: bool
) -> Iterator[tuple[RunPaths, Identity]]:
    """Holds the run's folder while the sweep runs; gives its paths and who it is.

    A new run's folder appears with its sweep.json and its rows inside, so that every run can be
    resumed. What is found wrong before the first trial begins, say that the cluster has no GPU,
    takes it away, unless the remedy is to resume it.

    Raises:
        SweepAborted: another process works on this run, its scores would not compare with those
            that it has, or the folder cannot be made.
    """
    paths = RunPaths.of(config.runs_dir, config.name)
    if is_resumed:
        record = read(paths) | {"config": _without_secrets(config)}
        if _has_trials(paths):
            check_metric(record.get("metric", {}), found)
        else:
            record["metric"] = metric_record(found)
    else:
        record = _first_record(config, found)
        _create(paths, record, found.splits)
    with _locked(paths):
        _write(paths.sweep_json, record)
        try:
            yield paths, Identity(str(record["sweep_id"]), str(record["name"]))
        except SweepAborted as aborted:
            if not is_resumed and "--resume" not in aborted.fix and not _has_trials(paths):
                shutil.rmtree(paths.folder, ignore_errors=True)
            raise


def add(paths: RunPaths, **facts: object) -> None:
    """Writes further facts into sweep.json, e.g. what was predicted."""
    _write(paths.sweep_json, read(paths) | facts)


def read(paths: RunPaths) -> dict[str, Any]:
    """The content of sweep.json."""
    content: dict[str, Any] = json.loads(paths.sweep_json.read_text(encoding="utf-8"))
    return content


def _first_record(config: SweepConfig, found: preflight.Preflight) -> dict[str, object]:
    return {
        "sweep_id": uuid.uuid4().hex,
        "name": config.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": _without_secrets(config),
        "metric": metric_record(found),
        "rungs": list(config.rungs),
        "rows": found.splits.counts,
        "digests": {
            "rows": rows_record(found.splits),
            "model": model_record(config.model),
        },
        "read": list(found.splits.notes),
        "prompt": found.splits.prompt_template,
        "labels": list(found.splits.scoring.labels),
        "dataset": config.data or found.task.dataset,
        "wandb_mode": found.wandb_mode,
        "versions": preflight.versions(),
        "git_commit": preflight.git_commit(),
        "hardware": preflight.hardware(),
    }


def _without_secrets(config: SweepConfig) -> dict[str, object]:
    """The config's JSON; a run's folder may be shared, so the database's password stays out."""
    url = config.study_storage
    return to_json(replace(config, study_storage=url and without_password(url)))


def _create(paths: RunPaths, record: dict[str, object], splits: Splits) -> None:
    tmp = paths.folder.with_name(f".{paths.folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        write_rows(tmp / paths.rows.name, splits)
        _write(tmp / paths.sweep_json.name, record)
        os.rename(tmp, paths.folder)
    except OSError as refused:
        shutil.rmtree(tmp, ignore_errors=True)
        raise SweepAborted(
            f"the run folder {paths.folder} cannot be made: {refused.strerror}",
            "choose another --runs-dir or --name",
        ) from None


def _write(path: Path, record: dict[str, object]) -> None:
    write_atomic(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def _has_trials(paths: RunPaths) -> bool:
    """Whether any trial began; what cannot be read may hold one."""
    try:
        return paths.events.exists() and bool(replay(read_events(paths.events)))
    except (OSError, SweepAborted):
        return True


@contextmanager
def _locked(paths: RunPaths) -> Iterator[None]:
    with paths.lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SweepAborted(
                f"another process works on the run {paths.folder}",
                "wait for it to end, or stop it first",
            ) from None
        yield
