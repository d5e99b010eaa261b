"""Workbooks: the sheets that hold the rows, and where on a sheet they begin."""

import io

import pandas as pd

from trainables.data.tables.find_files import find_split
from trainables.data.tables.table import read_cell
from trainables.errors import SweepAborted

MIN_ROWS = 10
"""A sheet of so many rows and of two columns is taken for a table, and not for a cover."""


def read_workbook(
    content: bytes, name: str, sheet: str | None, skip_rows: int
) -> list[tuple[str, pd.DataFrame, str]]:
    """The split, the cells with the header's, and how they were read, of each sheet that is used.

    Sheets that are called after splits are all used; else the first that looks like a table.

    Raises:
        SweepAborted: there is no such sheet.
        ValueError: it is no workbook.
    """
    with pd.ExcelFile(io.BytesIO(content), engine="openpyxl") as book:
        names = list(map(str, book.sheet_names))
        if sheet is not None and sheet not in names:
            raise SweepAborted(
                f"{name} has no sheet {sheet!r}", f"name one with --sheet: {', '.join(names)}"
            )

        def read(sheet: str) -> tuple[pd.DataFrame, str]:
            return _cut_table(
                book.parse(sheet, header=None, dtype=object, na_filter=False), skip_rows
            )

        splits = {} if sheet is not None else {n: s for n in names if (s := find_split(n))}
        if "train" in splits.values():
            left = [name for name in names if name not in splits]
            more = f" (not read: {', '.join(left)})" if left else ""
            tables = [(split, *read(name), name) for name, split in splits.items()]
            return [(s, cells, f"sheet {n}{more}{how}") for s, cells, how, n in tables]
        for chosen in [sheet] if sheet is not None else names:
            cells, how = read(chosen)
            if min(cells.shape[1] - 1, cells.shape[0] - MIN_ROWS) > 0:
                break
        else:
            chosen = sheet or names[0]
            cells, how = read(chosen)
    is_choice = len(names) > 1 and sheet is None
    which = "the first" if chosen == names[0] else "the first table"
    choice = f", {which} of {len(names)} (--sheet names another)" if is_choice else ""
    return [("", cells, f"sheet {chosen}{choice}{how}")]


def _cut_table(cells: pd.DataFrame, skip_rows: int) -> tuple[pd.DataFrame, str]:
    """The cells without blank rows and columns around them, and without a title above the names.

    A title is a row of a single cell, above rows of more; skip_rows skips what else stands there.
    """
    cells = cells.iloc[skip_rows:]
    is_filled = cells.map(lambda value: read_cell(value) != "")
    cells = cells.loc[is_filled.any(axis=1), is_filled.any(axis=0)]
    num_filled = is_filled.loc[cells.index].sum(axis=1)
    if not skip_rows and (num_filled > 1).any():
        cells = cells.loc[(num_filled > 1).idxmax() :]
    is_lower = not cells.empty and cells.index[0] > 0
    return cells, f", names in row {cells.index[0] + 1}" if is_lower else ""
