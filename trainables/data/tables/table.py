"""A table as it was read: its cells, what had to be found out, and the columns it must have."""

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from trainables.errors import SweepAborted
from trainables.shell import write_command

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Table:
    """The rows of one split or file, with cells of any type, lists and objects too."""

    frame: pd.DataFrame
    note: str
    """What was read and how, e.g. the encoding that was found."""
    source: str = "the table"
    """What it is called in messages."""

    @property
    def columns(self) -> list[str]:
        """Names of its columns."""
        return list(map(str, self.frame.columns))


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
            f"did you mean {write_command(near[0])}?" if near else fix,
        )
    double = next((name for name in names if columns.count(name) > 1), None)
    if double is not None:
        raise SweepAborted(f"{source} has two columns {double!r}", "rename one of them")


def name_columns(cells: pd.DataFrame, names: Sequence[str] | None) -> pd.DataFrame:
    """The rows below the first one, which holds the columns' names; or all, with names of yours.

    Raises:
        ValueError: there is no cell.
        SweepAborted: names are not as many as the columns.
    """
    if cells.empty:
        raise ValueError("it holds no cell")
    first = [read_cell(value) or "" for value in cells.iloc[0]]
    if names is not None and len(names) != len(first):
        shown = ", ".join(text[:40] for text in first)
        raise SweepAborted(
            f"--columns gives {len(names)} names, but there are {len(first)} columns; the first "
            f"row is: {shown}",
            "give each column one name, in their order",
        )
    has_header = names is None or list(names) == first
    rows = cells.iloc[1:] if has_header else cells
    given = names or [text or f"Unnamed: {i}" for i, text in enumerate(first)]
    return rows.set_axis(list(given), axis=1).reset_index(drop=True)


def read_cell(value: object) -> str | None:
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
    return "" if pd.isna(value) else str(value)  # type: ignore[call-overload]


def to_json_value(value: object) -> Any:
    """The cell as JSON can hold it: no number that is none, no half of a character."""
    match value:
        case str():
            return value.encode(errors="replace").decode()
        case dict():
            return {str(key): to_json_value(part) for key, part in value.items()}
        case list() | tuple() | set() | np.ndarray():
            return [to_json_value(part) for part in value]
        case np.generic():
            return to_json_value(value.item())
        case float() if not math.isfinite(value):
            return None
        case None | bool() | int() | float():
            return value
    return None if pd.isna(value) else str(value)  # type: ignore[call-overload]
