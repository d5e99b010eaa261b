"""Read tables from a file, a folder or the Hub, whatever their type, with clear errors."""

import csv
import difflib
import io
import json
import math
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import pandas as pd

from trainables.data.csv_text import decode, find_delimiter
from trainables.errors import SweepAborted
from trainables.models.hub_files import hub_file

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".xlsx")
"""File types of a table, in the order in which they are looked for."""
SPLIT_FILE_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
"""Names that a split's file may have in a folder."""
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Table:
    """The rows of one file as its cells are, and what had to be found out to read them."""

    frame: pd.DataFrame
    note: str


def read_split(folder: Path, split: str, columns: Sequence[str]) -> pd.DataFrame:
    """The table of the file called split, of any type, in the folder.

    Raises:
        SweepAborted: the folder, file or a column is missing, or the file cannot be read.
    """
    if not folder.is_dir():
        raise SweepAborted(
            f"data folder {folder} does not exist",
            "pass --data the folder that holds train, validation and test files",
        )
    path = find_file(folder, (split,))
    if path is not None:
        return _read_columns(path, columns, str(path))
    names = ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"
    raise SweepAborted(
        f"no {split} split in {folder}; found {names}",
        f"add one of {', '.join(split + suffix for suffix in SUFFIXES)}",
    )


def read_tables(data: Path, columns: Sequence[str]) -> dict[str, pd.DataFrame]:
    """The three splits of a folder; one table, by its file's name, for each file that is not split.

    A file, or a folder without a train split, holds rows that splitting.divide has to split.

    Raises:
        SweepAborted: the data cannot be read, or lacks a split or a column.
    """
    if data.is_file():
        return {data.name: _read_columns(data, columns, str(data))}
    splits = [split for split in SPLIT_FILE_NAMES if find_file(data, (split,))]
    if not splits or "train" in splits:
        splits = list(SPLIT_FILE_NAMES)  # of which each must be there
    return {split: read_split(data, split, columns) for split in splits}


def download_splits(repo: str, revision: str, columns: Sequence[str]) -> dict[str, pd.DataFrame]:
    """The three splits of a Hub dataset of one Parquet file each, or those in the local cache.

    Raises:
        SweepAborted: the Hub cannot be reached or does not have the files.
    """
    tables = {}
    for split in SPLIT_FILE_NAMES:
        file = f"default/{split}/0000.parquet"
        try:
            path = hub_file(repo, file, dataset_revision=revision)
        except OSError as error:
            raise SweepAborted(
                f"cannot download {file} of {repo}@{revision}: {first_line(error)}",
                "check the network, or pass --data DIR with train, validation and test files",
            ) from error
        tables[split] = _read_columns(path, columns, f"{repo}@{revision}/{file}")
    return tables


def read_local(path: Path, sheet: str | None = None) -> dict[str, Table]:
    """The tables of a file, or of a folder's split files, by split; a lone table's split is "".

    Args:
        sheet: of every file, all of which are workbooks then; None is the first of each.

    Raises:
        SweepAborted: there is no such place, it holds no table, or one cannot be read.
    """
    if path.is_file():
        return {"": open_table(path, sheet)}
    if not path.is_dir():
        is_address = any(part in ("http:", "https:") for part in path.parts)
        fix = "download it first, then name the file" if is_address else "check the path"
        raise SweepAborted(f"--data {path} does not exist", fix)
    files = {
        split: file
        for split, names in SPLIT_FILE_NAMES.items()
        if (file := find_file(path, names)) is not None
    }
    if not files:
        return {"": open_table(_lone_file(path), sheet)}
    if "train" not in files:
        raise SweepAborted(
            f"{path} has {', '.join(file.name for file in files.values())} but no train file",
            f"add one of {', '.join('train' + suffix for suffix in SUFFIXES)}",
        )
    return {split: open_table(file, sheet) for split, file in files.items()}


def find_file(folder: Path, names: Sequence[str]) -> Path | None:
    """The folder's file of one of the names and of a known type."""
    paths = (folder / f"{name}{suffix}" for name in names for suffix in SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def open_table(path: Path, sheet: str | None = None) -> Table:
    """Read one file; words such as NA or null stay text.

    Args:
        sheet: of a workbook; None is its first.

    Raises:
        SweepAborted: the file is empty, of no known type, not what its suffix says, or has no
            such sheet.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise SweepAborted(
            f"{path} is of no known type", f"save it as one of {', '.join(SUFFIXES)}"
        )
    if sheet is not None and suffix != ".xlsx":
        raise SweepAborted(f"{path} has no sheets", "leave out --sheet, or name an .xlsx file")
    try:
        if suffix in (".csv", ".tsv"):
            frame, how = _read_csv(path.read_bytes())
        elif suffix in (".jsonl", ".json"):
            frame, how = _read_json(path.read_bytes())
        elif suffix == ".parquet":
            frame, how = pd.read_parquet(path, dtype_backend="numpy_nullable").astype(object), ""
        else:
            frame, how = _read_xlsx(path, sheet)
    except (ValueError, OSError, KeyError, BadZipFile, csv.Error) as error:
        if isinstance(error, PermissionError):
            raise
        raise SweepAborted(
            f"cannot read {path}: {first_line(error)}",
            "repair it, or save it again as UTF-8 CSV, JSON Lines, Parquet or .xlsx",
        ) from error
    frame.columns = frame.columns.map(lambda name: str(name).strip())
    return Table(frame, f"{path.name}: {len(frame):,} rows{how and ', ' + how}")


def require_columns(
    columns: Sequence[str],
    names: Iterable[str],
    source: str,
    *,
    shown: str = "",
    fix: str = "",
    has_choice: bool = True,
) -> None:
    """Refuses a table that has not each name once among its columns.

    Args:
        source: what the columns are of, for the message.
        shown: the columns in words; their names if it is empty.
        fix: what helps where no column has a similar name.
        has_choice: whether the user chooses the names, so that a similar one is the remedy.

    Raises:
        SweepAborted: columns are missing, or of two of a name.
    """
    names = tuple(names)
    missing = [name for name in names if name not in columns]
    if missing:
        near = difflib.get_close_matches(missing[0], columns, n=1, cutoff=0.6) if has_choice else []
        raise SweepAborted(
            f"{source} has no column {', '.join(map(repr, missing))}; found "
            f"{shown or ', '.join(columns) or 'none'}",
            f"did you mean {shlex.quote(near[0])}?" if near else fix,
        )
    double = next((name for name in names if columns.count(name) > 1), None)
    if double is not None:
        raise SweepAborted(f"{source} has two columns {double!r}", "rename one of them")


def cell_text(value: object) -> str | None:
    """The cell as text without white space around it; missing is blank, None is no text at all.

    JSON can escape half of a character, which no tokenizer takes.
    """
    match value:
        case str() if not _HALF_CHARACTER.search(value):
            return value.replace("\r\n", "\n").strip()
        case str():
            return None
        case list() | dict() | bytes() | tuple() | set():
            return None
        case float() if math.isfinite(value) and value.is_integer():
            return str(int(value))
    if hasattr(value, "__len__"):  # an array of Parquet's
        return None
    return "" if pd.isna(value) else str(value)  # type: ignore[call-overload]


def first_line(error: Exception) -> str:
    """An error's message, without what a library adds below it."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _read_columns(path: Path, columns: Sequence[str], source: str) -> pd.DataFrame:
    """The file's table, once it has the columns that a task's dataset has."""
    frame = open_table(path).frame
    fix = f"name its columns {', '.join(columns)}"
    require_columns(list(map(str, frame.columns)), columns, source, fix=fix, has_choice=False)
    return frame


def _lone_file(folder: Path) -> Path:
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if len(files) == 1:
        return files[0]
    names = ", ".join(file.name for file in files[:8]) or "no table"
    raise SweepAborted(
        f"{folder} has no train file; it holds {names}",
        "name one file, or call the files train, validation and test",
    )


def _read_csv(content: bytes) -> tuple[pd.DataFrame, str]:
    text, encoding = decode(content)
    delimiter = find_delimiter(text)
    frame = pd.read_csv(io.StringIO(text), sep=delimiter, dtype=str, keep_default_na=False)
    if not isinstance(frame.index, pd.RangeIndex):  # pandas takes the surplus for an index
        raise ValueError("its rows have more fields than its header")
    frame.columns = pd.Index(_header(text, delimiter, list(frame.columns)))
    shown = "tab" if delimiter == "\t" else delimiter
    return frame, f"encoding {encoding}, delimiter {shown}"


def _header(text: str, delimiter: str, columns: list[str]) -> list[str]:
    """The names as they stand there; pandas calls a second "text" "text.1", as if nothing was."""
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    header = next((line for line in lines if any(line)), [])
    if len(header) != len(columns):
        return columns
    return [name.strip() or column for name, column in zip(header, columns, strict=True)]


def _read_json(content: bytes) -> tuple[pd.DataFrame, str]:
    """An array of objects, or one object a line."""
    text, encoding = decode(content, is_unicode=True)
    if text.lstrip().startswith("["):
        records = json.loads(text)
    else:
        records = [_parsed(line, n) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not records or not all(isinstance(record, dict) for record in records):
        raise ValueError("it must hold one object or more, each a row")
    how = "" if encoding.startswith("utf-8") else f"encoding {encoding}"
    return pd.DataFrame(records, dtype=object), how


def _parsed(line: str, number: int) -> object:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {number} is no JSON: {error.msg}") from error


def _read_xlsx(path: Path, sheet: str | None) -> tuple[pd.DataFrame, str]:
    with pd.ExcelFile(path, engine="openpyxl") as book:
        names = list(map(str, book.sheet_names))
        chosen = names[0] if sheet is None else sheet
        if chosen not in names:
            raise SweepAborted(
                f"{path} has no sheet {chosen!r}", f"name one with --sheet: {', '.join(names)}"
            )
        frame = book.parse(chosen, dtype=object, keep_default_na=False, na_filter=False)
    is_choice = len(names) > 1 and sheet is None
    left = f", the first of {len(names)} (--sheet names another)" if is_choice else ""
    return frame, f"sheet {chosen}{left}"
