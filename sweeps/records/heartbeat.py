"""What a running sweep shows of itself between two events: that it lives, and the time left."""

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import AwareDatetime, FiniteFloat, TypeAdapter, ValidationError

from sweeps.records.paths import RunPaths
from trainables.files import to_strict_json

INTERVAL_S = 5.0
"""Between two writings of the file."""
FRESH_S = 60.0
"""A heartbeat of so many seconds ago is that of a process that lives."""


@contextlib.contextmanager
def keep_heartbeat(
    paths: RunPaths, left_s: Callable[[], float | None], facts: Mapping[str, int]
) -> Iterator[None]:
    """Writes RUN/heartbeat.json every few seconds during the block, in a thread; then it goes.

    Args:
        left_s: see Eta.
        facts: what else it says: fields of Beat.
    """
    has_ended = threading.Event()

    def beat_on() -> None:
        write_heartbeat(paths, left_s(), facts)
        while not has_ended.wait(INTERVAL_S):
            write_heartbeat(paths, left_s(), facts)

    thread = threading.Thread(target=beat_on, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        has_ended.set()
        thread.join()
        with contextlib.suppress(OSError):
            paths.heartbeat.unlink(missing_ok=True)


def write_heartbeat(paths: RunPaths, left_s: float | None, facts: Mapping[str, int]) -> None:
    """Writes the file; a full disk is no matter here, and after a power cut it may be empty."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    who = {"host": socket.gethostname(), "pid": os.getpid()}
    said = {"time": now, "left_s": left_s, **who, **facts}
    tmp = paths.heartbeat.with_name(f".{paths.heartbeat.name}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        tmp.write_text(json.dumps(to_strict_json(said), indent=2), encoding="utf-8")
        tmp.replace(paths.heartbeat)


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
