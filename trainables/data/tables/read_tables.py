"""The tables that --data names, by split, whatever their place and type, with clear errors."""

import csv
import re
import sys
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from zipfile import BadZipFile

import pandas as pd

from trainables.config import TaskOptions
from trainables.data.tables.arrow_tables import read_arrow
from trainables.data.tables.csv_text import read_csv
from trainables.data.tables.find_files import (
    SPLIT_NAMES,
    SUFFIXES,
    DataFile,
    find_files,
    find_split,
)
from trainables.data.tables.hub_tables import download_splits, find_hub_files
from trainables.data.tables.json_rows import Rows, read_json
from trainables.data.tables.table import Table, name_columns, read_cell, require_columns
from trainables.data.tables.workbook import read_workbook
from trainables.errors import SweepAborted, get_first_line
from trainables.models.hub_files import is_dataset_id
from trainables.shell import get_flag

SPLIT_COLUMNS = ("split", "set", "subset", "partition")
"""Last words in the name of a column that may tell each row's split."""
_TEXT = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
_USES = {
    "sheet": ("sheets", (".xlsx",)),
    "encoding": ("encoding to choose", _TEXT),
    "skip_rows": ("lines above its names", (".csv", ".tsv", ".xlsx")),
    "columns": ("columns without names", (*_TEXT, ".xlsx")),
}
"""What each option is about, and the types that have it."""
_UNREADABLE = (
    *(ValueError, OSError, LookupError, RuntimeError, SyntaxError, AttributeError, TypeError),
    *(BadZipFile, csv.Error, zlib.error),
)
"""What the readers raise for a damaged file, a nest too deep, a password or a sheet of a chart."""


def read_tables(data: str | Sequence[str], options: TaskOptions) -> dict[str, Table]:
    """The tables by split; a table that has to be split is called "".

    Args:
        data: files, folders and archives; or one OWNER/NAME or OWNER/NAME/SUBSET of the Hub.

    Raises:
        SweepAborted: there is no such place, it holds no table, or one cannot be read.
    """
    names = [data] if isinstance(data, str) else list(data)
    if len(names) == 1 and is_dataset_id(names[0]):
        _refuse_useless(f"the dataset {names[0]}", ".parquet", options)
        repo = "/".join(names[0].split("/")[:2])
        tables = _use_split_column(_read_files(find_hub_files(names[0]), options, repo), options)
        return {split: _sample_rows(table, options.max_rows) for split, table in tables.items()}
    tables = _use_split_column(_read_paths(names, options), options)
    return {split: _sample_rows(table, options.max_rows) for split, table in tables.items()}


def read_table(path: str, options: TaskOptions) -> Table:
    """All rows of a file, folder or archive in their order, whatever split they tell.

    Args:
        path: "-" is JSON Lines on standard input.

    Raises:
        SweepAborted: there is no such place, it holds no table, or one cannot be read.
    """
    if path == "-":
        given = DataFile(PurePosixPath("standard input"), ".jsonl", sys.stdin.buffer.read)
        by_split = _read_files({"": [given]}, options)
    else:
        by_split = _read_paths([path], options)
    tables = list(by_split.values())
    return _join_tables(tables) if tables[1:] else tables[0]


def read_dataset(
    data: str | Sequence[str] | None, columns: Sequence[str], dataset: str
) -> dict[str, pd.DataFrame]:
    """The tables of a task that names its columns: of data, or without any of a dataset.

    Without a train split they hold rows that have to be split; one that is not named after a split
    has its file's name.

    Args:
        dataset: REPOSITORY@REVISION of the Hub.

    Raises:
        SweepAborted: the data cannot be read, or lacks a split or a column.
    """
    if data is None:
        tables = _read_files(download_splits(*dataset.split("@")), TaskOptions(), dataset)
    else:
        tables = read_tables(data, TaskOptions())
    lacking = next((split for split in SPLIT_NAMES if split not in tables), None)
    if "train" in tables and lacking:
        raise SweepAborted(
            f"there is no {lacking} split in {data}; found {', '.join(tables)}",
            f"add one of {', '.join(lacking + suffix for suffix in SUFFIXES)}",
        )
    fix = f"name its columns {', '.join(columns)}"
    for table in tables.values():
        require_columns(table.columns, columns, table.source, fix=fix, has_choice=False)
    return {split or table.source: table.frame for split, table in tables.items()}


def _read_paths(names: Sequence[str], options: TaskOptions) -> dict[str, Table]:
    """The tables of files, folders and archives by split; files that are not used are noted."""
    files, unused = find_files(names)
    tables = _read_files(files, options)
    if not unused:
        return tables
    shown = f"{', '.join(unused[:8])}{f' and {len(unused) - 8} more' * (len(unused) > 8)}"
    return _add_note(tables, f"not read: {shown}")


def _read_files(
    files: Mapping[str, Sequence[DataFile]], options: TaskOptions, repo: str = ""
) -> dict[str, Table]:
    """The tables of the files, those of a split joined."""
    parts: dict[str, list[Table]] = {}
    for named, some in files.items():
        for file in some:
            source = f"{file.name.parent} of {repo}" if repo else str(file.name)
            for split, frame, how in _read_file(file, options):
                parts.setdefault(split or named, []).append(Table(frame, how, source))
    if len(parts) > 1 and "" in parts:
        raise SweepAborted(
            f"{parts[''][0].source} does not tell its split, but other files do",
            "let every name have train, validation or test in it, or none",
        )
    return {s: _join_tables(parts[s]) for s in ("", *SPLIT_NAMES) if s in parts}


def _read_file(file: DataFile, options: TaskOptions) -> list[tuple[str, pd.DataFrame, str]]:
    """The split, rows and how they were read, of each table in it; NA or null stay text."""
    if file.suffix not in SUFFIXES:
        raise SweepAborted(
            f"{file.name} is of no known type", f"save it as one of {', '.join(SUFFIXES)}"
        )
    _refuse_useless(str(file.name), file.suffix, options)
    try:
        content = file.read()
        if file.suffix in (".csv", ".tsv"):
            cells, how = read_csv(content, str(file.name), options.encoding, options.skip_rows)
            tables = [("", name_columns(cells, options.columns), how)]
        elif file.suffix in _TEXT:
            splits, how = read_json(content, options.encoding)
            tables = [(s, _make_frame(rows, options.columns), how) for s, rows in splits.items()]
        elif file.suffix == ".xlsx":
            sheets = read_workbook(content, str(file.name), options.sheet, options.skip_rows)
            tables = [(s, name_columns(cells, options.columns), how) for s, cells, how in sheets]
        else:
            tables = [("", read_arrow(content, file.suffix), "")]
    except PermissionError:
        raise
    except _UNREADABLE as error:
        raise SweepAborted(
            f"cannot read {file.name}: {get_first_line(error)}",
            "repair it, name its --encoding, or save it again as UTF-8 CSV, JSON Lines, Parquet or "
            ".xlsx",
        ) from error
    for _, frame, _ in tables:
        frame.columns = frame.columns.map(lambda name: str(name).strip())
    if options.columns is None or not len(tables[0][1]):
        return tables
    first = ", ".join(str(value)[:20] for value in tables[0][1].iloc[0])
    return [(split, frame, f"{how}, first row: {first}") for split, frame, how in tables]


def _refuse_useless(source: str, suffix: str, options: TaskOptions) -> None:
    """Refuses what a file of this type would not heed, so that no flag is silently lost."""
    for name, (what, suffixes) in _USES.items():
        if getattr(options, name) and suffix not in suffixes:
            flag = get_flag(name)
            raise SweepAborted(
                f"{source} has no {what}", f"leave out {flag}; it is for {', '.join(suffixes)}"
            )


def _make_frame(rows: Rows, names: Sequence[str] | None) -> pd.DataFrame:
    frame = pd.DataFrame(rows, dtype=object)
    if isinstance(rows[0], list):
        return name_columns(frame, names)
    if names is not None:
        raise SweepAborted("--columns is given, but the rows name their columns", "leave it out")
    return frame


def _join_tables(parts: Sequence[Table]) -> Table:
    """The tables as one."""
    frame = pd.concat([p.frame for p in parts], ignore_index=True) if parts[1:] else parts[0].frame
    sources = list(dict.fromkeys(part.source for part in parts))
    source = f"{sources[0]} and {len(sources) - 1} more" if sources[1:] else sources[0]
    if frame.empty:
        raise SweepAborted(f"{source} holds no rows", "name a file with rows below its names")
    lacking = {
        f"{part.source} has no column {name}"
        for part in parts
        for name in frame.columns.difference(part.frame.columns)
    }
    notes = [f"{len(frame):,} rows", *dict.fromkeys(part.note for part in parts), *sorted(lacking)]
    return Table(frame, f"{source}: {', '.join(filter(None, notes))}", source)


def _sample_rows(table: Table, max_rows: int | None) -> Table:
    """The table, or so many of its rows, the same every time."""
    if max_rows is None or max_rows >= len(table.frame):
        return table
    frame = table.frame.sample(max_rows, random_state=0).sort_index().reset_index(drop=True)
    note = f"{table.note}, {max_rows:,} of them drawn, the same every time"
    return replace(table, frame=frame, note=note)


def _use_split_column(tables: dict[str, Table], options: TaskOptions) -> dict[str, Table]:
    """The lone table by the splits that its column tells; what is not used of one is noted."""
    for split, table in tables.items():
        for name in table.columns:
            is_asked = name in (options.input, options.target)
            last_word = re.split(r"[\W_]", name.lower())[-1]
            if last_word not in SPLIT_COLUMNS or is_asked or table.columns.count(name) > 1:
                continue
            values = [read_cell(value) or "" for value in table.frame[name]]
            row_splits = [find_split(value) for value in values]
            if split == "" and "train" in row_splits:
                return _divide_table(table, name, values, row_splits)
            if split == "" or set(row_splits) != {split}:
                why = "the files tell the splits" if split else "it does not tell the splits"
                shown = ", ".join(list(dict.fromkeys(values))[:3])
                return _add_note(tables, f"the column {name} ({shown}) is not used: {why}")
    return tables


def _divide_table(
    table: Table, name: str, values: Sequence[str], row_splits: Sequence[str]
) -> dict[str, Table]:
    others = Counter(value for value, split in zip(values, row_splits, strict=True) if not split)
    left = "".join(
        f", {count:,} rows of {other or 'none'!r} left out" for other, count in others.items()
    )
    tables = {
        split: Table(table.frame[[s == split for s in row_splits]], "", table.source)
        for split in SPLIT_NAMES
        if split in row_splits
    }
    note = f"{table.note}, split by its column {name}{left}"
    return tables | {"train": replace(tables["train"], note=note)}


def _add_note(tables: dict[str, Table], note: str) -> dict[str, Table]:
    """The tables, the last of which tells this too."""
    last = list(tables)[-1]
    return tables | {last: replace(tables[last], note=f"{tables[last].note}; {note}")}
