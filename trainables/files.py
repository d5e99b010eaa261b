"""Files that survive kills and full disks: atomic replacement, and append-only JSON Lines."""

import contextlib
import csv
import errno
import io
import json
import math
import os
import shutil
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FULL_BYTES = 2**20
"""A disk with less than this free is full: a checkpoint's last files did not fit."""


class DamagedLine(ValueError):
    """A line of a JSON Lines file that is whole and holds no JSON."""

    def __init__(self, path: Path, number: int, reason: str) -> None:
        super().__init__(f"line {number} of {path} is damaged: {reason}")
        self.number = number


class JsonLines:
    """Appends objects to a file, one a line, and has each on disk before it returns.

    A kill leaves at most one torn last line, which has no newline. Nobody was told that it was
    written, so opening the file again cuts it off, and reading it skips it.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # a link would have lines appended to whatever file it names
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        self._file = os.open(path, flags, 0o666)
        content = os.pread(self._file, os.fstat(self._file).st_size, 0)
        whole_bytes = content.rfind(b"\n") + 1
        if whole_bytes < len(content):
            os.ftruncate(self._file, whole_bytes)

    def append(self, *records: Mapping[str, object]) -> None:
        """Writes objects, all together.

        Raises:
            OSError: the disk is full or gone, or the file was deleted; what was written of the
                lines is taken back.
            ValueError: a number is not finite, which strict JSON cannot hold.
        """
        lines = encode_lines(records)
        stat = os.fstat(self._file)
        if stat.st_nlink == 0:  # else all that comes would go nowhere
            raise FileNotFoundError(errno.ENOENT, "it was deleted")
        try:
            while lines:  # a write may take less than it is given
                lines = lines[os.write(self._file, lines) :]
            os.fsync(self._file)
        except OSError:
            with contextlib.suppress(OSError):  # else the half line is a torn one to readers
                os.ftruncate(self._file, stat.st_size)
            raise

    def close(self) -> None:
        """Closes the file; its lines are on disk already."""
        os.close(self._file)


def write_table(rows: Iterable[Iterable[object]]) -> str:
    """The rows as CSV that spreadsheets show: a text that they would run as a formula, and may
    come from data, stands behind an apostrophe.
    """
    text = io.StringIO()
    csv.writer(text).writerows([_show_formula(cell) for cell in row] for row in rows)
    return text.getvalue()


def _show_formula(cell: object) -> object:
    if not isinstance(cell, str) or not cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return cell
    with contextlib.suppress(ValueError):  # a number, as spreadsheets too read it
        float(cell)
        return cell
    return f"'{cell}"


def encode_lines(records: Iterable[Mapping[str, object]]) -> bytes:
    """The objects in UTF-8, one a line.

    Raises:
        ValueError: a number is not finite, which strict JSON cannot hold.
    """
    texts = [json.dumps(one, ensure_ascii=False, allow_nan=False) + "\n" for one in records]
    return "".join(texts).encode()


def read_json_lines(path: Path) -> list[Any]:
    """What stands in each line, without a torn last one.

    Only a newline ends a line: texts may hold other line ends of Unicode.

    Raises:
        DamagedLine: a line that ends is not JSON.
    """
    return parse_json_lines(path.read_bytes(), path)


def parse_json_lines(content: bytes, path: Path, num_before: int = 0) -> list[Any]:
    """What stands in each line of a piece of a file, which may end with a torn line.

    Args:
        num_before: lines of the file before it.

    Raises:
        DamagedLine: a line that ends is not JSON.
    """
    records = []
    for number, line in enumerate(content.split(b"\n")[:-1], start=num_before + 1):
        try:
            records.append(parse_json(line))
        except ValueError as error:
            raise DamagedLine(path, number, str(error)) from error
    return records


def parse_json(text: str | bytes) -> Any:
    """What a text in JSON says that may be damaged.

    Raises:
        ValueError: it is no JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def to_strict_json(value: Any) -> Any:
    """Value as strict JSON can hold it: NaN and infinities as strings that float() reads."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    if isinstance(value, dict):
        return {key: to_strict_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_strict_json(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def write_json(path: Path, content: object) -> None:
    """Writes strict JSON for people, atomically.

    Raises:
        OSError: the disk is full or gone; an older file stays.
    """
    text = json.dumps(to_strict_json(content), indent=2, ensure_ascii=False)
    write_atomic(path, f"{text}\n")


def write_atomic(path: Path, content: str) -> None:
    """Writes a text file beside path and renames it, so that no reader meets half of it.

    Raises:
        OSError: the disk is full or gone; an older file stays.
    """
    tmp = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with tmp.open("w", encoding="utf-8", newline="") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        tmp.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            tmp.unlink()
        raise


def open_weights(folder: Path, beside: str) -> None:
    """Gives the folder's weights, which safetensors writes for this user alone, the permissions
    that the umask has given another new file there."""
    mode = (folder / beside).stat().st_mode & 0o777
    for path in folder.glob("*.safetensors"):
        with contextlib.suppress(OSError):  # a file system without permissions
            path.chmod(mode)


def sync_path(path: Path) -> None:
    """Waits until a file, or a folder's list of files, would survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_disk_full(folder: Path) -> bool:
    """Whether next to nothing can be written to a folder, which need not be there. A file system
    that does not tell its size, as some in user space, counts as not full."""
    present = next(path for path in (folder, *folder.parents) if path.exists())
    usage = shutil.disk_usage(present)
    return usage.total > 0 and usage.free < FULL_BYTES
