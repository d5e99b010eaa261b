"""The rows that a run trains and scores on, as Parquet in its own folder: prepared once, read by
every process of the run."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from pyarrow import ArrowException, Table, parquet

from trainables.data.rows import SPLITS, Row, Scoring, Splits
from trainables.errors import SweepAborted

FACTS_NAME = "splits.json"
"""What is true of all rows: how they are scored, counted and prompted."""
_COLUMNS = ("id", "prompt", "target")
_DAMAGED_ROWS = "put the folder back as it was, or begin a new sweep with another --name"
_NO_ROWS = (
    "every node must see the run's folder under this path; an earlier version's run has no rows, "
    "so begin a new sweep with another --name"
)


def write_rows(folder: Path, splits: Splits) -> None:
    """Writes a Parquet file a split and the facts beside them; the folder appears whole.

    Raises:
        OSError: the folder exists, or cannot be written.
    """
    tmp = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    tmp.mkdir(parents=True)
    try:
        for name in SPLITS:
            rows: tuple[Row, ...] = getattr(splits, name)
            columns = {column: [getattr(row, column) for row in rows] for column in _COLUMNS}
            parquet.write_table(Table.from_pydict(columns), tmp / f"{name}.parquet")
        facts = {
            "scoring": asdict(splits.scoring),
            "counts": splits.counts,
            "prompt_template": splits.prompt_template,
            "notes": list(splits.notes),
        }
        (tmp / FACTS_NAME).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        for path in (*tmp.iterdir(), tmp):  # sweep.json, which names the rows, is synced too
            _sync(path)
        os.rename(tmp, folder)
    except BaseException:
        shutil.rmtree(tmp, ignore_errors=True)
        raise


def read_rows(folder: Path) -> Splits:
    """The rows that write_rows wrote.

    Raises:
        SweepAborted: a file is missing or damaged.
    """
    try:
        facts = json.loads((folder / FACTS_NAME).read_text(encoding="utf-8"))
        scoring = facts["scoring"]
        rows = {
            name: tuple(
                Row(**values)
                for values in parquet.read_table(
                    folder / f"{name}.parquet", columns=list(_COLUMNS)
                ).to_pylist()
            )
            for name in SPLITS
        }
        return Splits(
            **rows,
            counts=facts["counts"],
            scoring=Scoring(**scoring | {"labels": tuple(scoring["labels"])}),
            prompt_template=facts["prompt_template"],
            notes=tuple(facts["notes"]),
        )
    except (OSError, ValueError, KeyError, TypeError, ArrowException) as damaged:
        raise SweepAborted(
            f"the prepared rows in {folder} cannot be read: {' '.join(str(damaged).split())}",
            _NO_ROWS if not folder.exists() else _DAMAGED_ROWS,
        ) from damaged


def _sync(path: Path) -> None:
    """Waits until a file, or a folder's list of files, would survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest_rows(rows: Iterable[Row]) -> str:
    """SHA-256 of the rows' ids, prompts and targets in their order, however a file keeps them."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row.id, row.prompt, row.target]).encode() + b"\n")
    return digest.hexdigest()
