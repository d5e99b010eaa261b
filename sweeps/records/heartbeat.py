"""What a running sweep shows of itself between two events: that it lives, and the time left."""

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from pydantic import AwareDatetime, FiniteFloat, TypeAdapter, ValidationError

from sweeps.records.paths import RunPaths
from trainables.files import to_strict_json

INTERVAL_S = 5.0
"""Between two writings of the file."""
FRESH_S = 60.0
"""A heartbeat of so many seconds ago is that of a process that lives."""


class Heartbeat:
    """Writes RUN/heartbeat.json every few seconds, in a thread of its own, until it is left; then
    the file goes.

    Args:
        left_s: see Eta.
        facts: what else it says: fields of Beat.
    """

    def __init__(
        self, paths: RunPaths, left_s: Callable[[], float | None], facts: Mapping[str, int]
    ) -> None:
        self._path = paths.heartbeat
        self._left_s = left_s
        self._facts = facts
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._has_ended.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def beat(self) -> None:
        """Writes the file; a full disk is no matter here, and after a power cut it may be empty."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        who = {"host": socket.gethostname(), "pid": os.getpid()}
        said = {"time": now, "left_s": self._left_s(), **who, **self._facts}
        tmp = self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")
        with contextlib.suppress(OSError):
            tmp.write_text(json.dumps(to_strict_json(said), indent=2), encoding="utf-8")
            tmp.replace(self._path)

    def _beat_on(self) -> None:
        self.beat()
        while not self._has_ended.wait(INTERVAL_S):
            self.beat()


@dataclass(frozen=True, kw_only=True)
class Beat:
    """What the file says."""

    time: AwareDatetime
    left_s: FiniteFloat | None
    host: str = ""
    """Name of its machine, "" if not known."""
    pid: int = 0
    num_gpus: int
    num_packs: int
    slots_per_gpu: int

    def is_fresh(self, now: datetime | None = None) -> bool:
        """Whether its process lives, as far as clocks of several machines agree."""
        return abs(((now or datetime.now(UTC)) - self.time).total_seconds()) < FRESH_S


def read_heartbeat(paths: RunPaths) -> Beat | None:
    """What the file says; None where there is none, or a damaged one."""
    try:
        return parse_heartbeat(paths.heartbeat.read_bytes())
    except OSError:
        return None


def parse_heartbeat(content: bytes) -> Beat | None:
    """What a file with this content says; None if it is damaged."""
    try:
        return TypeAdapter(Beat).validate_json(content)
    except ValidationError:
        return None
