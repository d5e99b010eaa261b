"""Trackers follow the event log, each in a thread of its own, and none in the sweep's way.

A thread reads the log whenever it has grown, and its tracker writes what it lacks. So a slow
server slows neither trials nor other trackers, and whatever is missing is written by the next
replay: after a failure, when a killed sweep is resumed, or by `python -m sweeps.sync`.
"""

import logging
import math
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

from sweeps.records.events import parse_events
from sweeps.records.paths import RunPaths
from sweeps.records.redact import join_lines, redact
from sweeps.records.trial_record import TrialRecord, replay_all
from trainables.errors import get_first_line
from trainables.shell import write_command

POLL_INTERVAL_S = 1.0
RETRY_INTERVAL_S = 30.0
"""After a failure, until the tracker is asked again."""

_log = logging.getLogger(__name__)


class Tracker(Protocol):
    """Shows a sweep in one more place than its folder. Calls come from one thread at a time.

    Whatever replay and close raise costs one warning, and a later replay.
    """

    name: str
    """As `--track` takes it."""

    def replay(self, events: Sequence[dict[str, Any]], trials: Sequence[TrialRecord]) -> None:
        """Brings what it shows to what the whole log says; what it shows already stays as it is.

        Args:
            events: of the log, oldest first.
            trials: what they tell of each trial and each run of the finals.
        """

    def close(self, *, is_disk_trusted: bool) -> None:
        """Completes what was written. Another replay may follow, once the log has grown.

        Args:
            is_disk_trusted: False if the disk may be full, so that files may lack their ends.
        """


class Trackers:
    """All trackers of a sweep, each with the thread that follows the log for it."""

    def __init__(self, paths: RunPaths, trackers: Sequence[Tracker]) -> None:
        log = _Log(paths)
        self._followers = [_Follower(tracker, log) for tracker in trackers]

    def start(self) -> None:
        """Begins to follow the log while it grows."""
        for follower in self._followers:
            follower.start()

    def finish(self, timeout_s: float | None = None, *, is_disk_trusted: bool = True) -> None:
        """Writes what the log holds and trackers lack; may be called again when it has grown.

        It takes as long as the slowest tracker does: some seconds where a server does not answer.

        Args:
            timeout_s: after it, trackers that are not done have failed; None waits for them.
            is_disk_trusted: False counts no file as complete that was written: not every tracker
                tells of a full disk.

        Raises:
            Exception: the log cannot be read.
        """
        for follower in self._followers:
            follower.end(is_disk_trusted=is_disk_trusted)
        until_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
        for follower in self._followers:
            follower.join(until_s)

    @property
    def failed(self) -> list[str]:
        """Names of the trackers that lack something."""
        return [f.tracker.name for f in self._followers if f.has_failed]


class _Log:
    """The log as far as it was read, which all threads share: each look reads on from there."""

    def __init__(self, paths: RunPaths) -> None:
        self.paths = paths
        self._lock = threading.Lock()
        self._num_bytes = 0
        self._events: list[dict[str, Any]] = []
        self._trials: list[TrialRecord] = []

    def read(self) -> tuple[int, list[dict[str, Any]], list[TrialRecord]]:
        """Its length in bytes, its events, and what they tell of trials."""
        with self._lock:
            content, path = b"", self.paths.events
            if path.is_file():
                with path.open("rb") as file:
                    file.seek(self._num_bytes)
                    content = file.read()
            if new := parse_events(content, path, len(self._events)):
                events = [*self._events, *new]  # a tracker may hold the old list
                self._events, self._trials = events, replay_all(events)
                self._num_bytes += content.rfind(b"\n") + 1
            return self._num_bytes, self._events, self._trials


class _Follower:
    """One tracker, and the thread that calls it."""

    def __init__(self, tracker: Tracker, log: _Log) -> None:
        self.tracker = tracker
        self.has_failed = False
        """Since its last replay that succeeded."""
        self._log = log
        self._is_disk_trusted = True
        self._num_bytes = 0
        """Length of the log at that replay."""
        self._has_warned = False
        self._retry_at_s = 0.0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._log_error: Exception | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._follow, name=self.tracker.name, daemon=True)
        self._thread.start()

    def end(self, *, is_disk_trusted: bool) -> None:
        """Lets the thread, or a new one, catch up with the log for the last time."""
        self._is_disk_trusted = is_disk_trusted
        self._ended.set()
        if self._thread is None:
            self.start()

    def join(self, until_s: float) -> None:
        if self._thread is not None:
            left_s = max(0.0, until_s - time.monotonic())
            self._thread.join(None if math.isinf(left_s) else left_s)
            if self._thread.is_alive():
                self.has_failed = True
                return
        self._thread = None
        if self._log_error is not None:
            error, self._log_error = self._log_error, None
            raise error

    def _follow(self) -> None:
        while not self._ended.wait(POLL_INTERVAL_S):
            if time.monotonic() >= self._retry_at_s:
                with suppress(Exception):  # the log's own: the last look meets it again
                    self._catch_up()
        try:
            self._catch_up()
        except Exception as error:  # of the log, perhaps of another version's
            self._log_error = error
            return
        try:
            self.tracker.close(is_disk_trusted=self._is_disk_trusted)
        except Exception as error:
            self._fail(error)

    def _catch_up(self) -> None:
        num_bytes, events, trials = self._log.read()
        if num_bytes == self._num_bytes:
            return
        try:
            self.tracker.replay(events, trials)
        except Exception as error:  # libraries raise many kinds, some of them private
            self._fail(error)
        else:
            self._num_bytes, self.has_failed = num_bytes, False

    def _fail(self, error: Exception) -> None:
        self.has_failed = True
        self._num_bytes = 0
        self._retry_at_s = time.monotonic() + RETRY_INTERVAL_S
        if self._has_warned:
            return
        self._has_warned = True
        _log.warning(
            "%s cannot be written and is tried again (%s). No report is lost: events.jsonl has "
            "them all. If something is missing in the end: python -m sweeps.sync %s --track %s",
            self.tracker.name,
            describe_error(error),
            write_command(self._log.paths.folder),
            self.tracker.name,
        )


def describe_error(error: Exception) -> str:
    """An error's message as a line that may be shown: it may come from any library or server."""
    return redact(join_lines(get_first_line(error)))
