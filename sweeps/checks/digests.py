"""Digests of what a sweep trains on and with, so that a resume knows that both are still there."""

import hashlib
from pathlib import Path

from trainables.data.prepared_rows import digest_rows
from trainables.data.rows import SPLITS, Splits
from trainables.models.hub_files import hub_file
from trainables.models.model_files import tokenizer_files, weight_files

_NUM_SAMPLES = 64
_SAMPLE_BYTES = 4096


def rows_record(splits: Splits) -> dict[str, dict[str, object]]:
    """The number and the digest of each split's rows, for sweep.json."""
    rows = {name: getattr(splits, name) for name in SPLITS}
    return {name: {"num": len(rows[name]), "sha256": digest_rows(rows[name])} for name in rows}


def model_record(model: str) -> dict[str, str]:
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
