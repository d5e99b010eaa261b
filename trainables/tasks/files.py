"""Read a split's table from a folder (CSV, JSON Lines, Parquet) or the Hub, with clear errors."""

from pathlib import Path

import pandas as pd

from trainables.errors import SweepAborted
from trainables.hub_files import hub_file

SUFFIXES = (".csv", ".jsonl", ".parquet")
"""File types of a split, in the order in which they are looked for."""


def read_split(folder: Path, split: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """Read folder/split.csv, .jsonl or .parquet.

    Raises:
        SweepAborted: the folder, file or a column is missing, or the file cannot be read.
    """
    if not folder.is_dir():
        raise SweepAborted(
            f"data folder {folder} does not exist",
            "pass --data the folder that holds train, validation and test files",
        )
    for suffix in SUFFIXES:
        path = folder / f"{split}{suffix}"
        if path.is_file():
            return require_columns(read_table(path), columns, str(path))
    found = ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"
    raise SweepAborted(
        f"no {split} split in {folder}; found {found}",
        f"add one of {', '.join(split + suffix for suffix in SUFFIXES)}",
    )


def download_split(repo: str, revision: str, file: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """Read one Parquet file of a Hub dataset, from the local cache if it is there.

    Raises:
        SweepAborted: the Hub cannot be reached or does not have the file.
    """
    try:
        path = hub_file(repo, file, dataset_revision=revision)
    except OSError as error:
        raise SweepAborted(
            f"cannot download {file} of {repo}@{revision}: {_first_line(error)}",
            "check the network, or pass --data DIR with train, validation and test files",
        ) from error
    return require_columns(read_table(path), columns, f"{repo}@{revision}/{file}")


def read_table(path: Path) -> pd.DataFrame:
    """Read one file; words such as NA or null stay text.

    Raises:
        SweepAborted: the file is empty, not what its suffix says, or not UTF-8.
    """
    try:
        if path.suffix == ".csv":
            return pd.read_csv(path, dtype=str, keep_default_na=False)
        if path.suffix == ".jsonl":
            return pd.read_json(path, lines=True, dtype=False)
        return pd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise SweepAborted(
            f"cannot read {path}: {_first_line(error)}",
            "save it again as UTF-8 CSV, JSON Lines or Parquet",
        ) from error


def require_columns(table: pd.DataFrame, columns: tuple[str, ...], source: str) -> pd.DataFrame:
    """The table, once it has every column.

    Raises:
        SweepAborted: a column is missing.
    """
    missing = [column for column in columns if column not in table.columns]
    if missing:
        found = ", ".join(map(str, table.columns)) or "none"
        raise SweepAborted(
            f"{source} has no column {', '.join(missing)}; found {found}",
            f"name its columns {', '.join(columns)}",
        )
    return table


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
