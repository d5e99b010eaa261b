"""The predictions of a file's rows, kept as they come, so that a killed command goes on."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sweeps.records.run_lock import try_lock_if_any
from trainables.data.tables.table import to_json_value
from trainables.errors import SweepAborted, get_first_line
from trainables.files import (
    DamagedLine,
    JsonLines,
    encode_lines,
    parse_json,
    read_json_lines,
    write_json,
)

LINES = (".jsonl", ".ndjson")
TABLES = (".csv", ".parquet")
"""Written in the end, from JSON Lines beside them."""
ADDED = ("prediction", "probability", "probabilities")
"""Columns that predictions add to those of the input."""


class PredictionFile:
    """Rows with their predictions, in the input's order; a note beside the file says of what.

    Args:
        path: "-" is standard output, which is neither gone on with nor noted.
        about: what decides the predictions, by name, as JSON values.
        frame: the input.
        records: its rows as JSON values.
        labels: what may be predicted; none of texts.

    Raises:
        SweepAborted: the file cannot be written, holds something else already, or is being written.
    """

    def __init__(
        self,
        path: str,
        about: Mapping[str, object],
        frame: pd.DataFrame,
        records: Sequence[Mapping[str, object]],
        labels: Sequence[str],
    ) -> None:
        self._path = Path(path)
        self._frame = frame
        self._about = about
        self._lines: JsonLines | None = None
        self.said: list[str | None] = []
        """Predictions that are written, by row."""
        if path == "-":
            return
        suffix = self._path.suffix.lower()
        self._is_table = suffix in TABLES
        if not self._is_table and suffix not in LINES:
            raise SweepAborted(
                f"--output {path} is of no known type",
                f"end it in {', '.join((*LINES, *TABLES))}, or give - for standard output",
            )
        if suffix == ".parquet":
            _check_parquet(frame)
        self.note_path = self._path.with_name(f"{self._path.name}.json")
        self._lines_path = self._path
        if self._is_table:
            self._lines_path = self._path.with_name(f"{self._path.name}.jsonl")
            if os.path.lexists(self._path):
                raise SweepAborted(
                    f"--output {path} exists already", "name another file, or remove it"
                )
        if os.path.lexists(self.note_path) and not self._read_about():
            raise SweepAborted(
                f"{self.note_path} exists, and is no note of predictions",
                "name another --output, or move that file",
            )
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock()
            if self._lines_path.stat().st_size:
                self._check_note()
            else:
                self.write_note({})
            self._lines = JsonLines(self._lines_path)
            self.said = self._read_said(records, labels)
        except SweepAborted:
            self._locked.close()
            raise
        except OSError as refused:
            raise SweepAborted(
                f"--output {path} cannot be written: {get_first_line(refused)}",
                "name another file, in a folder that you may write to",
            ) from None

    def append(self, records: Sequence[Mapping[str, object]]) -> None:
        """Writes rows with their predictions.

        Raises:
            OSError: the disk is full or gone, or nobody reads standard output any more.
        """
        if self._lines is None:
            sys.stdout.buffer.write(encode_lines(records))
            sys.stdout.buffer.flush()
        else:
            self._lines.append(*records)
        self.said += [record["prediction"] for record in records]  # type: ignore[misc]

    def finish(self, results: Mapping[str, object]) -> None:
        """Notes the results once all rows are written, and makes the table if one was asked for."""
        if self._lines is None:
            return
        self._lines.close()
        if self._is_table:
            self._write_table()
        self.write_note(results)
        self._locked.close()

    def write_note(self, results: Mapping[str, object]) -> None:
        """Writes what the predictions are of, and results of theirs."""
        write_json(self.note_path, {"about": self._about, **results})

    def _check_note(self) -> None:
        about = self._read_about()
        differing = [name for name in self._about if about.get(name) != self._about[name]]
        differing = differing if about else ["command, or of none"]
        if differing:
            raise SweepAborted(
                f"{self._lines_path} exists, and is of another {' and another '.join(differing)}",
                "name another --output, or remove that file",
            )

    def _read_about(self) -> dict[str, Any]:
        """What the note tells of predictions; nothing if it is none."""
        try:
            about = parse_json(self.note_path.read_text(encoding="utf-8"))["about"]
        except (OSError, ValueError, TypeError, KeyError):
            return {}
        return about if isinstance(about, dict) else {}

    def _lock(self) -> None:
        """Holds the file, where there are locks, until this process ends: lines of two would be
        mixed."""
        self._locked = self._lines_path.open("ab")
        if try_lock_if_any(self._locked.fileno()) is False:
            raise SweepAborted(
                f"another process writes {self._lines_path}", "wait for it to end, or stop it first"
            )

    def _read_said(
        self, records: Sequence[Mapping[str, object]], labels: Sequence[str]
    ) -> list[str | None]:
        """The predictions in the file, whose lines are the first rows."""
        try:
            lines = read_json_lines(self._lines_path)
            for number, line in enumerate(lines, 1):
                record = records[number - 1] if number <= len(records) else None
                if not _is_prediction(line, record, labels):
                    raise DamagedLine(self._lines_path, number, "it is not as it was written")
        except DamagedLine as damaged:
            raise SweepAborted(
                str(damaged), f"remove line {damaged.number} and all below it, or name another file"
            ) from None
        return [line[ADDED[0]] for line in lines]

    def _write_table(self) -> None:
        frame = self._frame.copy()
        lines = read_json_lines(self._lines_path)
        for name in ADDED:
            if any(name in line for line in lines):
                frame[name] = [_to_cell(line.get(name)) for line in lines]
        tmp = self._path.with_name(f".{self._path.name}.tmp")
        if self._path.suffix.lower() == ".csv":
            frame.map(_to_cell).to_csv(tmp, index=False)
        else:
            frame.to_parquet(tmp, index=False)
        tmp.replace(self._path)
        self._lines_path.unlink()


def _is_prediction(line: Any, record: Mapping[str, object] | None, labels: Sequence[str]) -> bool:
    """Whether the line is the record with a prediction."""
    if not isinstance(line, dict) or ADDED[0] not in line:
        return False
    text, fields = line[ADDED[0]], {name: line[name] for name in line if name not in ADDED}
    is_text = isinstance(text, str) and (not labels or text in labels)
    return fields == record and (text is None or is_text)


def _to_cell(value: Any) -> Any:
    """Lists and objects as JSON text; of half a character, which no file can hold, a "?"."""
    if isinstance(value, str):
        return to_json_value(value)
    is_nested = isinstance(value, list | dict) or hasattr(value, "tolist")
    return json.dumps(to_json_value(value), ensure_ascii=False) if is_nested else value


def _check_parquet(frame: pd.DataFrame) -> None:
    import pyarrow  # slow; other files need none

    try:
        pyarrow.Table.from_pandas(frame)
    except (pyarrow.ArrowException, TypeError, ValueError) as refused:
        raise SweepAborted(
            f"the input's columns do not fit in Parquet: {get_first_line(refused)}",
            "end --output in .jsonl",
        ) from None
