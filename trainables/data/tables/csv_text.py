"""CSV files: which encoding and which delimiter one has, found by stated rules, and its cells."""

import contextlib
import csv
import io
from collections import Counter
from itertools import islice

import pandas as pd

from trainables.errors import SweepAborted

csv.field_size_limit(2**31 - 1)  # the default refuses texts of more than 131,072 characters
DELIMITERS = (",", ";", "\t", "|")
NUM_RECORDS = 50
"""Records that are looked at to find the delimiter."""
_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
"""Byte order marks, which Excel writes."""
_TURKISH = frozenset(b"\xd0\xdd\xde\xf0\xfd\xfe")
"""The six letters in which cp1254 (Turkish) differs from cp1252 and latin-1 (Western European)."""


def read_csv(
    content: bytes, name: str, encoding: str | None, skip_rows: int
) -> tuple[pd.DataFrame, str]:
    """All cells, those of the header too, as text; and how they were read.

    Raises:
        ValueError: the bytes are not of that encoding, or quotes are not closed.
        SweepAborted: a row is longer than the first, which may be no header then.
    """
    text, encoding = decode(content, encoding)
    lines = io.StringIO(text, newline="")
    for _ in range(skip_rows):
        lines.readline()
    text = lines.read()
    delimiter = find_delimiter(text, is_tsv=".tsv" in name.lower())
    is_single = _read_widths(text, delimiter)[:1] == [1]
    try:
        if is_single and _count_lines_above_header(text):
            raise pd.errors.ParserError("Expected 1 fields")
        frame = pd.read_csv(
            io.StringIO(text), sep=delimiter, header=None, dtype=str, keep_default_na=False
        )
    except pd.errors.ParserError as refused:
        if "Expected" not in str(refused):
            raise
        num_above = _count_lines_above_header(text)
        names_line = skip_rows + num_above + 1
        raise SweepAborted(
            f"cannot read {name}: its rows have more fields than its header",
            f"if the columns' names stand in line {names_line}, add --skip-rows {names_line - 1}"
            if num_above
            else "put quotes around fields that hold the delimiter",
        ) from refused
    frame, quotes = _read_stray_quotes(frame, text, delimiter)
    shown = "tab" if delimiter == "\t" else delimiter
    return frame.fillna(""), f"encoding {encoding}, delimiter {shown}{quotes}"


def _read_stray_quotes(frame: pd.DataFrame, text: str, delimiter: str) -> tuple[pd.DataFrame, str]:
    """The table with its quotes as letters, if they are none of CSV's and rows are whole without.

    A cell that begins with a stray quote takes in all lines up to the next one, which no delimiter
    follows: strict CSV refuses that.
    """
    if '"' not in text:
        return frame, ""
    try:
        for _ in csv.reader(io.StringIO(text), delimiter=delimiter, strict=True):
            pass
    except csv.Error:
        with contextlib.suppress(pd.errors.ParserError):
            plain = pd.read_csv(
                io.StringIO(text),
                sep=delimiter,
                header=None,
                dtype=str,
                keep_default_na=False,
                quoting=csv.QUOTE_NONE,
            )
            if plain.shape[1] == frame.shape[1] and not plain.isna().any(axis=None):
                return plain, ", quotes taken as letters"
    return frame, ""


def decode(
    content: bytes, encoding: str | None = None, *, is_unicode: bool = False
) -> tuple[str, str]:
    """The text and the name of its encoding, which is the given one if there is one.

    Else a byte order mark decides. Without one it is UTF-16 if every other byte of the beginning is
    mostly zero, else UTF-8 if the bytes are valid UTF-8. What is left is a Windows file: cp1254 if
    it has one of the six Turkish letters' bytes (Icelandic letters in cp1252), else cp1252.

    Args:
        is_unicode: whether the format allows no Windows encoding, as JSON.

    Raises:
        UnicodeDecodeError: the bytes are none of these.
        LookupError: there is no such encoding.
    """
    encoding = encoding or _find_encoding(content, is_unicode)
    return content.decode(encoding).removeprefix("\ufeff"), encoding


def find_delimiter(text: str, *, is_tsv: bool = False) -> str:
    """The delimiter of , ; tab | that cuts most of the first records like the header.

    Only those that cut the header into two fields or more are in question; the earlier one wins a
    tie, and in a TSV file the tab. A file of a single column has none, and gets a comma.
    """
    scores = {}
    for delimiter in sorted(DELIMITERS, key="\t".__ne__) if is_tsv else DELIMITERS:
        widths = _read_widths(text, delimiter)
        scores[delimiter] = widths.count(widths[0]) if widths and widths[0] > 1 else 0
    return max(scores, key=lambda delimiter: scores[delimiter])


def _find_encoding(content: bytes, is_unicode: bool) -> str:
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            return encoding
    head = content[:2000]
    for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if head[first::2].count(0) > len(head) // 4:
            return encoding
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        if is_unicode:
            raise
        return "cp1254" if _TURKISH & set(content) else "cp1252"
    return "utf-8"


def _count_lines_above_header(text: str) -> int:
    """Lines above the first record as wide as most; 0 if that cannot be told."""
    for delimiter in DELIMITERS:
        widths = _read_widths(text, delimiter)
        [(most, count)] = Counter(widths).most_common(1) or [(0, 0)]
        if most > 1 and count > len(widths) // 2:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
            before = 0
            for record in reader:
                if len(record) == most:
                    return before
                before = reader.line_num
    return 0


def _read_widths(text: str, delimiter: str) -> list[int]:
    """Fields of each of the first records that are not blank; [] if quotes do not fit."""
    lines = io.StringIO(text[:1_000_000], newline="")
    return [len(r) for r in islice(csv.reader(lines, delimiter=delimiter), NUM_RECORDS) if r]
