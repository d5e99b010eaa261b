"""The first record of a run, which sweep.json keeps: what was asked for, on what."""

import hashlib
import uuid
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from sweeps.checks.environment import describe_hardware, list_versions, read_git_commit
from sweeps.checks.preflight import Preflight
from sweeps.checks.sweep_json import dump_config
from sweeps.config import SweepConfig
from trainables.data.prepared_rows import digest_rows
from trainables.data.rows import SPLITS, Splits
from trainables.metrics.fingerprints import compute_fingerprint
from trainables.metrics.registry import read_metrics
from trainables.models.hub_files import download_hub_file
from trainables.models.model_files import list_tokenizer_files, list_weight_files

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
                "fingerprint": compute_fingerprint(asked.metric, preflight.splits.scoring).digest,
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
    of = compute_fingerprint(preflight.task.metric, preflight.splits.scoring)
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
        return {"config.json": _digest_file(download_hub_file(model, "config.json"))}
    small = [folder / "config.json", *list_tokenizer_files(str(folder))]
    digests = {path.name: _digest_file(path) for path in small}
    return digests | {path.name: _digest_samples(path) for path in list_weight_files(folder)}


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
