"""sweep.json: what was asked for, on what; written before the first trial."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sweeps.checks.digests import model_record, rows_record
from sweeps.checks.environment import git_commit, hardware, versions
from sweeps.checks.preflight import Preflight
from sweeps.config import SweepConfig, from_json, to_json
from sweeps.records.paths import RunPaths
from sweeps.search.storage import hide_password
from trainables.errors import SweepAborted
from trainables.files import write_atomic
from trainables.metrics.fingerprints import fingerprint


def first_record(config: SweepConfig, preflight: Preflight) -> dict[str, object]:
    """What a new run is asked for, on what."""
    return {
        "sweep_id": uuid.uuid4().hex,
        "name": config.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": config_record(config),
        "metric": metric_record(preflight),
        "rungs": list(config.rungs),
        "rows": preflight.splits.counts,
        "digests": {"rows": rows_record(preflight.splits), "model": model_record(config.model)},
        "read": list(preflight.splits.notes),
        "prompt": preflight.splits.prompt_template,
        "labels": list(preflight.splits.scoring.labels),
        "dataset": config.data or preflight.task.dataset,
        "wandb_mode": preflight.wandb_mode,
        "versions": versions(),
        "git_commit": git_commit(),
        "hardware": hardware(),
    }


def metric_record(preflight: Preflight) -> dict[str, object]:
    """Name, mode and fingerprint, with all that the fingerprint is of."""
    of = fingerprint(preflight.task.metric, preflight.splits.scoring)
    return {"name": of.name, "mode": of.mode, "fingerprint": of.digest} | asdict(of)


def config_record(config: SweepConfig) -> dict[str, object]:
    """The config's JSON; a run's folder may be shared, so the database's password stays out."""
    url = config.study_storage
    return to_json(replace(config, study_storage=url and hide_password(url)))


def read(paths: RunPaths) -> dict[str, Any]:
    """The content of sweep.json."""
    content: dict[str, Any] = json.loads(paths.sweep_json.read_text(encoding="utf-8"))
    return content


def read_config(paths: RunPaths, needed: Sequence[str], fix: str) -> SweepConfig:
    """The config in sweep.json.

    Args:
        needed: what else has to be there.

    Raises:
        SweepAborted: the file is damaged, or of another version of this project.
    """
    try:
        content = read(paths)
        config = from_json(content["config"])
        _ = [content[name] for name in needed]
    except (ValidationError, KeyError, TypeError, ValueError, OSError) as damaged:
        has_key = not isinstance(damaged, KeyError)
        reason = " ".join(str(damaged).split()) if has_key else f"it has no {damaged}"
        raise SweepAborted(f"{paths.sweep_json} cannot be read: {reason}", fix) from None
    return config


def add(paths: RunPaths, **facts: object) -> None:
    """Writes further facts into sweep.json, e.g. what was predicted."""
    write(paths.sweep_json, read(paths) | facts)


def write(path: Path, record: dict[str, object]) -> None:
    """Replaces sweep.json."""
    write_atomic(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
