"""Rows on disk, one line each, kept through kill -9: the file of a build that may go on."""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from trainables.errors import SweepAborted


class RowLog:
    """An append-only JSON Lines file of rows by their id; one process writes it at a time.

    Raises:
        SweepAborted: another process has it open.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[str, Mapping[str, str]] = {}

    def __enter__(self) -> Self:
        self._file = self._path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as taken:
            self._file.close()
            raise SweepAborted(
                f"another build writes {self._path}", "wait for it, or choose another --out"
            ) from taken
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._file.truncate(len(whole))  # a killed writer may leave half a line
        for row in read_lines(whole):
            self._rows[row["id"]] = row
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def __contains__(self, row_id: str) -> bool:
        return row_id in self._rows

    def __getitem__(self, row_id: str) -> Mapping[str, str]:
        return self._rows[row_id]

    def append(self, row: Mapping[str, str]) -> None:
        """Adds a row, and returns once it is on the disk."""
        self._file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._rows[row["id"]] = row


def read_lines(content: bytes) -> list[dict[str, str]]:
    """The rows of a JSON Lines file; only a newline ends one, not Unicode's other line ends."""
    return [json.loads(line) for line in content.split(b"\n") if line]


def write_whole(path: Path, text: str) -> None:
    """Writes a file that is either there as a whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
