"""A CSV file's bytes as text: which encoding and which delimiter it has, found by stated rules."""

import csv
import io
from itertools import islice

DELIMITERS = (",", ";", "\t", "|")
NUM_RECORDS = 50
"""Records that are looked at to find the delimiter."""
_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
"""Byte order marks, which Excel writes."""
_TURKISH = frozenset(b"\xd0\xdd\xde\xf0\xfd\xfe")
"""The six letters in which cp1254 (Turkish) differs from cp1252 and latin-1 (Western European)."""


def decode(content: bytes, *, is_unicode: bool = False) -> tuple[str, str]:
    """The text and the name of its encoding.

    A byte order mark decides. Without one it is UTF-16 if every other byte of the beginning is
    mostly zero, else UTF-8 if the bytes are valid UTF-8. What is left is a Windows file: cp1254 if
    it has one of the six Turkish letters' bytes (Icelandic letters in cp1252), else cp1252.

    Args:
        is_unicode: whether the format allows no Windows encoding, as JSON.

    Raises:
        UnicodeDecodeError: the bytes are none of these.
    """
    encoding = _encoding(content, is_unicode)
    return content.decode(encoding).removeprefix("\ufeff"), encoding


def find_delimiter(text: str) -> str:
    """The delimiter of , ; tab | that cuts most of the first records like the header.

    Only those that cut the header into two fields or more are in question; the earlier one wins a
    tie. A file of a single column has none, and gets a comma.
    """
    scores = [_num_alike(text, delimiter) for delimiter in DELIMITERS]
    return DELIMITERS[scores.index(max(scores))]


def _encoding(content: bytes, is_unicode: bool) -> str:
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


def _num_alike(text: str, delimiter: str) -> int:
    """Records of as many fields as the header; 0 if the header is a single field."""
    lines = io.StringIO(text[:1_000_000], newline="")
    try:
        records = [r for r in islice(csv.reader(lines, delimiter=delimiter), NUM_RECORDS) if r]
    except csv.Error:  # a field of more than 131,072 characters: quotes that do not fit
        return 0
    if not records or len(records[0]) < 2:
        return 0
    return sum(len(record) == len(records[0]) for record in records)
