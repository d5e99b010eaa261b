"""The rows that a run trains and scores on, as Parquet in its own folder: prepared once, read by
every process of the run."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from trainables.config import TrainingSettings
from trainables.data.rows import SPLITS, Message, MetricCode, Row, Scoring, Splits, TableColumns
from trainables.errors import SweepAborted
from trainables.files import parse_json, sync_path
from trainables.storage import fetch_files

FACTS_NAME = "splits.json"
"""What is true of all rows: how they are scored, counted and prompted."""
_MESSAGE = pa.struct({"role": pa.string(), "content": pa.string(), "is_trained": pa.bool_()})
_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "prompt": pa.string(),
        "target": pa.string(),
        "history": pa.list_(_MESSAGE),
        "thought": pa.string(),
        "references": pa.list_(pa.string()),
        "cut_from": pa.int64(),
        "cut_to": pa.int64(),
        "added": pa.string(),
    }
)
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
            values = [asdict(row) for row in rows]
            table = pa.Table.from_pylist(values, schema=_SCHEMA)
            parquet.write_table(table, tmp / f"{name}.parquet")
        facts = {
            "scoring": asdict(splits.scoring),
            "counts": splits.counts,
            "prompt_template": splits.prompt_template,
            "source": splits.source,
            "notes": list(splits.notes),
            "columns": splits.columns and asdict(splits.columns),
        }
        (tmp / FACTS_NAME).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        for path in (*tmp.iterdir(), tmp):  # sweep.json, which names the rows, is synced too
            sync_path(path)
        os.rename(tmp, folder)
    except BaseException:
        shutil.rmtree(tmp, ignore_errors=True)
        raise


def fetch_rows(settings: TrainingSettings) -> None:
    """Has the prepared rows on this disk, where no folder is shared; it may still have those of an
    earlier run of the same name.

    Raises:
        SweepAborted: the storage cannot be read.
    """
    if settings.storage is not None:
        settings.rows_dir.parent.mkdir(mode=0o770, parents=True, exist_ok=True)
        fetch_files(f"{settings.storage}/{settings.rows_dir.name}", settings.rows_dir)


def read_rows(folder: Path, names: Collection[str] = SPLITS) -> Splits:
    """The rows that write_rows wrote.

    Args:
        names: of the splits to read; the others are empty.

    Raises:
        SweepAborted: a file is missing or damaged.
    """
    with _explain_damage(folder):
        rows: dict[str, Any] = {
            name: tuple(
                _make_row(values)
                for values in parquet.read_table(
                    folder / f"{name}.parquet", columns=_SCHEMA.names
                ).to_pylist()
            )
            for name in names
        }
    return replace(read_facts(folder), **rows)


def read_facts(folder: Path) -> Splits:
    """What is true of the rows that write_rows wrote, without them.

    Raises:
        SweepAborted: the file is missing or damaged.
    """
    with _explain_damage(folder):
        facts = parse_json((folder / FACTS_NAME).read_text(encoding="utf-8"))
        scoring = facts["scoring"]
        scoring |= {name: tuple(scoring.get(name, ())) for name in ("labels", "metrics")}
        scoring["custom"] = tuple(MetricCode(**metric) for metric in scoring.get("custom", ()))
        columns = facts.get("columns")
        return Splits(
            train=(),
            validation=(),
            test=(),
            counts=facts["counts"],
            scoring=Scoring(**scoring),
            prompt_template=facts["prompt_template"],
            source=facts["source"],
            notes=tuple(facts["notes"]),
            columns=columns and TableColumns(**columns),
        )


@contextmanager
def _explain_damage(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as damaged:
        raise SweepAborted(
            f"the prepared rows in {folder} cannot be read: {' '.join(str(damaged).split())}",
            _NO_ROWS if not folder.exists() else _DAMAGED_ROWS,
        ) from damaged


def _make_row(values: dict[str, Any]) -> Row:
    history = tuple(Message(**message) for message in values["history"])
    return Row(**values | {"history": history, "references": tuple(values["references"])})


def digest_rows(rows: Iterable[Row]) -> str:
    """SHA-256 of the rows in their order, however a file keeps them."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(asdict(row), sort_keys=True).encode() + b"\n")
    return digest.hexdigest()
