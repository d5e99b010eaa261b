"""Parquet and Arrow files: their cells as Python values, and the names behind label numbers."""

import re
from typing import Any

import pandas as pd

from trainables.files import parse_json


def read_arrow(content: bytes, suffix: str) -> pd.DataFrame:
    """The rows of a Parquet or Arrow file; pandas' unnamed index is left out, a named one is kept.

    Raises:
        ValueError, OSError: it is none.
    """
    from pyarrow import BufferReader, ipc, parquet  # slow; another type needs none

    source = BufferReader(content)
    if suffix == ".parquet":
        table = parquet.ParquetFile(source).read()
    elif content.startswith(b"ARROW1"):
        table = ipc.open_file(source).read_all()
    else:
        table = ipc.open_stream(source).read_all()
    names = _find_class_names(table.schema.metadata or {})
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        values = column.to_pylist()
        if name in names:  # -1 is the Hub's missing label
            by_number = dict(enumerate(names[name]))
            values = [by_number.get(value) for value in values]
        if not re.fullmatch(r"__index_level_\d+__", name):
            columns.append(pd.Series(values, name=name, dtype=object))
    return pd.concat(columns, axis=1) if columns else pd.DataFrame()


def _find_class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """The names behind the numbers of label columns, as the Hub keeps them beside the rows."""
    info: dict[str, Any] = parse_json(metadata.get(b"huggingface", b"{}"))
    features = info.get("info", {}).get("features", {})
    return {
        column: feature["names"]
        for column, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }
