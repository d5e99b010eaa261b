"""sweep.json: what was asked for, on what; written before the first trial."""

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sweeps.checks.environment import describe_hardware, list_versions, read_git_commit
from sweeps.checks.preflight import Preflight
from sweeps.config import SweepConfig, from_json, to_json
from sweeps.records.paths import RunPaths
from sweeps.records.redact import hide_secrets
from trainables.data.prepared_rows import digest_rows
from trainables.data.rows import SPLITS, Splits
from trainables.errors import SweepAborted
from trainables.files import write_json
from trainables.metrics.fingerprints import fingerprint
from trainables.metrics.registry import read_metrics
from trainables.models.hub_files import hub_file
from trainables.models.model_files import tokenizer_files, weight_files
from trainables.shell import write_command

_NUM_SAMPLES = 64
_SAMPLE_BYTES = 4096


def make_first_record(config: SweepConfig, preflight: Preflight) -> dict[str, object]:
    """What a new run is asked for, on what."""
    return {
        "sweep_id": uuid.uuid4().hex,
        "name": config.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": dump_config(config),
        "metric": describe_metric(preflight),
        "metrics": {
            asked.metric.name: {
                "mode": asked.metric.mode,
                "fingerprint": fingerprint(asked.metric, preflight.splits.scoring).digest,
            }
            for asked in read_metrics(config.task_options)
        },
        "rungs": list(config.rungs),
        "rows": preflight.splits.counts,
        "added": preflight.splits.added,
        "digests": {"rows": digest_splits(preflight.splits), "model": digest_model(config.model)},
        "read": list(preflight.splits.notes),
        "prompt": preflight.splits.prompt_template,
        "labels": list(preflight.splits.scoring.labels),
        "dataset": config.data or preflight.task.dataset,
        "wandb_mode": preflight.wandb_mode,
        "versions": list_versions(),
        "git_commit": read_git_commit(),
        "hardware": describe_hardware(),
    }


def describe_metric(preflight: Preflight) -> dict[str, object]:
    """Name, mode and fingerprint, with all that the fingerprint is of."""
    of = fingerprint(preflight.task.metric, preflight.splits.scoring)
    return {"name": of.name, "mode": of.mode, "fingerprint": of.digest} | asdict(of)


def digest_splits(splits: Splits) -> dict[str, dict[str, object]]:
    """The number and the digest of each split's rows, for sweep.json."""
    rows = {name: getattr(splits, name) for name in SPLITS}
    return {name: {"num": len(rows[name]), "sha256": digest_rows(rows[name])} for name in rows}


def digest_model(model: str) -> dict[str, str]:
    """A digest of each file that decides what the model computes, for sweep.json.

    Of weights, which may be large, it covers the size, the header and samples of the rest: a model
    that is trained further changes all of them. The weights of a Hub model may not be here yet.
    """
    folder = Path(model)
    if not folder.is_dir():
        return {"config.json": _digest_file(hub_file(model, "config.json"))}
    small = [folder / "config.json", *tokenizer_files(str(folder))]
    digests = {path.name: _digest_file(path) for path in small}
    return digests | {path.name: _digest_samples(path) for path in weight_files(folder)}


def _digest_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest_samples(path: Path) -> str:
    """Covers the size, and pieces from the first byte, where the header is, to the last."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    last = max(0, size - _SAMPLE_BYTES)
    with path.open("rb") as file:
        for sample in range(_NUM_SAMPLES):
            file.seek(last * sample // (_NUM_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def dump_config(config: SweepConfig) -> dict[str, object]:
    """The config's JSON; a run's folder may be shared, so the database's password stays out."""
    url = config.study_storage
    return to_json(replace(config, study_storage=url and hide_secrets(url)))


def read(paths: RunPaths) -> dict[str, Any]:
    """The content of sweep.json."""
    content: dict[str, Any] = json.loads(paths.sweep_json.read_text(encoding="utf-8"))
    return content


def read_row_digests(paths: RunPaths) -> dict[str, str]:
    """SHA-256 of each split's rows."""
    return {name: of["sha256"] for name, of in read(paths)["digests"]["rows"].items()}


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


def read_run(paths: RunPaths, command: str) -> SweepConfig:
    """The config of the run, at the place where it lies now.

    Args:
        command: how the run is named to it.

    Raises:
        SweepAborted: there is none, or it is damaged or of another version.
    """
    if not paths.sweep_json.is_file():
        runs = sorted(path.parent for path in paths.folder.parent.glob("*/sweep.json"))[-8:]
        fix = f"{command} with RUN one of: {', '.join(map(write_command, runs))}"
        fix = fix if runs else "python -m sweeps.run samsum --tiny makes one in runs/"
        raise SweepAborted(f"there is no sweep in {paths.folder}", fix)
    config = read_config(paths, (), "use the version of this project that wrote it")
    return replace(config, runs_dir=str(paths.folder.parent), name=paths.folder.name)


def add(paths: RunPaths, **facts: object) -> None:
    """Writes further facts into sweep.json, e.g. what was predicted."""
    write(paths.sweep_json, read(paths) | facts)


def write(path: Path, record: dict[str, object]) -> None:
    """Replaces sweep.json."""
    write_json(path, record)
