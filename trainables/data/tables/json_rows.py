"""JSON as people save it: rows one a line or in an array, under a key, by split, or by column."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from trainables.data.tables.csv_text import decode
from trainables.data.tables.find_files import find_split

Rows = list[dict[str, Any]] | list[list[Any]]
"""Objects, or arrays of which the first may hold the columns' names."""
_SPACE = re.compile(r"\s*")


def read_json(content: bytes, encoding: str | None) -> tuple[dict[str, Rows], str]:
    """The rows of each split, "" where the file names none; and how they were read.

    Raises:
        ValueError: it is no JSON, or holds no rows.
        LookupError: there is no such encoding.
    """
    text, encoding = decode(content, encoding, is_unicode=True)
    how = "" if encoding.startswith("utf-8") else f"encoding {encoding}"
    values = list(_parse_values(text))
    if len(values) != 1 or not isinstance(values[0], dict):
        rows = values[0] if len(values) == 1 else values  # an array, or one value a line
        return {"": _require_rows(rows)}, how
    value = values[0]
    splits = {split: rows for key, rows in value.items() if (split := find_split(key))}
    if splits and all(isinstance(rows, list | dict) for rows in splits.values()):
        return {split: _find_rows(rows)[0] for split, rows in splits.items()}, how
    rows, key = _find_rows(value)
    return {"": rows}, ", ".join(filter(None, [how, key and f"rows under {key}"]))


def _parse_values(text: str) -> Iterator[Any]:
    """Every value of a text that holds one, one a line, or one after the other."""
    decoder = json.JSONDecoder()
    place = _skip_space(text, 0)
    while place < len(text):
        try:
            value, end = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            line = text.count("\n", 0, place) + 1
            raise ValueError(f"line {line} is no JSON: {error.msg}") from error
        yield value
        place = _skip_space(text, end)


def _skip_space(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return match.end() if match else place


def _find_rows(value: Any) -> tuple[Rows, str]:
    """The rows that a value holds, and the key under which they were, "" for none."""
    if not isinstance(value, dict):
        return _require_rows(value), ""
    parts = list(value.values())
    if _are_alike(parts, list) and not any(_are_rows(part) for part in parts):
        return _transpose(value), ""  # columns as arrays
    if isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):
        return [value["columns"], *value["data"]], ""  # pandas' to_json(orient="split")
    if _are_alike(parts, dict):  # pandas' to_json() of columns, or rows by their number or name
        inner = list(parts[0])
        is_by_row = _are_numbers(value) or (not _are_numbers(inner) and len(value) > len(inner))
        return (parts if is_by_row else _transpose({k: v.values() for k, v in value.items()})), ""
    found = dict(_list_rows(value))
    if found:
        key = max(found, key=lambda key: len(found[key]))
        return found[key], key
    return [value], ""


def _list_rows(value: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every array of objects in an object, with the keys that lead to it."""
    for key, part in value.items():
        if _are_rows(part):
            yield f"{above}{key}", part
        elif isinstance(part, dict):
            yield from _list_rows(part, f"{above}{key}.")


def _are_alike(parts: list[Any], kind: type) -> bool:
    """Whether they are two or more of the kind and of one length or the same keys."""
    if len(parts) < 2 or not all(isinstance(part, kind) and part for part in parts):
        return False
    if kind is dict:
        return all(part.keys() == parts[0].keys() for part in parts)
    return all(len(part) == len(parts[0]) for part in parts)


def _are_rows(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _are_numbers(keys: Mapping[str, Any] | list[str]) -> bool:
    return all(key.isdecimal() for key in keys)


def _transpose(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Columns as rows."""
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _require_rows(rows: object) -> Rows:
    for kind in (dict, list):
        if isinstance(rows, list) and rows and all(isinstance(row, kind) for row in rows):
            return rows
    raise ValueError("it must hold one object or more, each a row")
