"""What users ask of a sweep while it runs: a file of requests, which only grows.

Whoever steers a sweep (sweeps.ask, a tracker's stop button, a program) appends a request to
RUN/requests.jsonl. The sweep's process reads the file about once a second, and says in events.jsonl
what it has done about each, in an event of the kind "asked". A sweep that is resumed takes up what
was asked meanwhile.
"""

import fcntl
import hashlib
import logging
import os
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from search_spaces.lora import Point
from sweeps.records.paths import RunPaths, abort_if_unwritable
from sweeps.records.run_lock import NO_LOCKS
from trainables.files import encode_lines
from trainables.shell import write_command

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One thing that is asked of a sweep: exactly one of the fields after id."""

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Names it in the log. Of two with the same id the first counts."""
    stop: tuple[str, ...] = ()
    """Running trials to stop."""
    add: Point | None = None
    """Hyperparameters of one more trial, which comes next, but for start points that still wait;
    what is not named is drawn."""
    num_trials: int | None = None
    """Trials that the search shall have, at least those that have begun or were added."""
    finish: bool = False
    """End the search now, its running trials too, and go to the finals."""

    def __post_init__(self) -> None:
        given = [bool(self.stop), self.add is not None, self.num_trials is not None, self.finish]
        if sum(given) != 1:
            raise ValueError("a request asks for one of stop, add, num_trials and finish")

    def describe(self) -> str:
        """What is asked for, as flags of sweeps.ask."""
        if self.add is not None:
            return f"--add {write_point(self.add)}"
        if self.stop:
            return write_command("--stop", *self.stop)
        return "--finish" if self.finish else f"--num-trials {self.num_trials}"


def write_point(point: Point) -> str:
    """A point, or a part of one, as --add takes it."""
    return write_command(*(f"{name}={value}" for name, value in point.items()))


def append_request(paths: RunPaths, request: Request) -> None:
    """Writes a request, for the process that runs the sweep or resumes it.

    The file is its user's alone, and only grows. Writers of several machines take turns by its
    lock, where the file system has locks.

    Raises:
        SweepAborted: the file cannot be written.
    """
    line = encode_lines([{name: v for name, v in asdict(request).items() if v}])
    with abort_if_unwritable(paths.requests):
        file = os.open(paths.requests, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX)  # ends with the file's being closed
            except OSError as refused:
                if refused.errno not in NO_LOCKS:
                    raise
            size_bytes = os.fstat(file).st_size
            is_torn = size_bytes > 0 and os.pread(file, 1, size_bytes - 1) != b"\n"
            left = b"\n" * is_torn + line
            while left:  # a write may take less than it is given
                left = left[os.write(file, left) :]
            os.fsync(file)
        finally:
            os.close(file)


class RequestReader:
    """Reads the requests of a run, each once. A line that is none is told once and left out.

    Args:
        events: requests that these answer are not new.
    """

    def __init__(self, paths: RunPaths, events: Sequence[dict[str, Any]]) -> None:
        self._path = paths.requests
        self._read = {event["id"] for event in events if event["kind"] == "asked"}
        self._offset = 0
        self._num_lines = 0
        self._warned_of: str | None = None
        """Why the file could not be read last."""

    def read_new(self) -> list[Request]:
        """Requests that were not read before, oldest first; a line without its end is not yet one.

        The file is opened anew each time, because a shared file system shows then what others
        wrote.
        """
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                whole, end, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        except OSError as refused:
            if refused.strerror != self._warned_of:
                logger.warning("%s cannot be read: %s", self._path, refused.strerror)
            self._warned_of = refused.strerror
            return []
        self._warned_of = None
        self._offset += len(whole) + len(end)
        new = []
        for line in whole.split(b"\n") if end else []:
            self._num_lines += 1
            try:
                fields = from_json(line)
                if isinstance(fields, dict):  # one without an id has the same whenever it is read
                    digest = hashlib.sha256(b"%d %b" % (self._num_lines, line)).hexdigest()
                    fields.setdefault("id", digest[:32])
                request = TypeAdapter(Request).validate_python(fields)
            except ValueError as refused:
                reason = str(refused)
                if isinstance(refused, ValidationError):
                    reason = refused.errors()[0]["msg"]
                where = f"line {self._num_lines} of {self._path}"
                logger.warning("%s is no request: %s", where, reason)
                continue
            if request.id not in self._read:
                self._read.add(request.id)
                new.append(request)
        return new
