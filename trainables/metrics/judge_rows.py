"""The rows that a judge reads: JSON Lines with a source and one answer or two."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from trainables.errors import SweepAborted

_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half a character: JSON can escape it, UTF-8 cannot write it."""
_FIX = 'one JSON object a line, e.g. {"source": "...", "answer_a": "...", "answer_b": "..."}'


@dataclass(frozen=True, kw_only=True)
class JudgedRow:
    """A source and the answers to it."""

    id: str
    """The row's own, or the number of its line."""
    source: str
    answer_a: str
    answer_b: str | None = None
    reference: str | None = None
    """An answer that is known to be good."""


def read_rows(path: Path, needs_both: bool) -> list[JudgedRow]:
    """The rows of a file, all of them checked before the first is paid for.

    Raises:
        SweepAborted: the file cannot be read, is empty, or a line of it is no such row.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SweepAborted(f"{path} cannot be read: {error}", "name a file of rows") from error
    rows = [
        _row(line, f"line {number} of {path}", str(number), needs_both)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not rows:
        raise SweepAborted(f"{path} has no rows", _FIX)
    return rows


def _row(line: str, where: str, number: str, needs_both: bool) -> JudgedRow:
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        raise SweepAborted(f"{where} is no JSON: {error}", _FIX) from error
    if not isinstance(found, dict):
        raise SweepAborted(f"{where} is no JSON object", _FIX)
    source, answer_a = (_text(found, name, where, True) for name in ("source", "answer_a"))
    assert source is not None and answer_a is not None
    return JudgedRow(
        id=str(found.get("id", number)),
        source=source,
        answer_a=answer_a,
        answer_b=_text(found, "answer_b", where, needs_both),
        reference=_text(found, "reference", where, False),
    )


def _text(found: dict[str, object], name: str, where: str, is_needed: bool) -> str | None:
    value = found.get(name)
    if value is None and not is_needed:
        return None
    if isinstance(value, str) and not _SURROGATE.search(value):
        return value
    raise SweepAborted(f"{where} has no text {name!r}", _FIX)
