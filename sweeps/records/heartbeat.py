"""What a running sweep shows of itself between two events: that it lives, and the time left."""

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from sweeps.records.paths import RunPaths
from trainables.files import write_json

INTERVAL_S = 5.0
"""Between two writings of the file."""


class Heartbeat:
    """Writes RUN/heartbeat.json every few seconds. No other file depends on it.

    Args:
        left_s: see Eta.
        facts: what else it says.
    """

    def __init__(
        self,
        paths: RunPaths,
        left_s: Callable[[], float | None],
        facts: Mapping[str, object],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = paths.heartbeat
        self._left_s = left_s
        self._facts = facts
        self._now_s = now_s
        self._written_s = -INTERVAL_S

    def beat(self) -> None:
        """Writes the file if it is time; a full disk is no matter here."""
        if self._now_s() - self._written_s >= INTERVAL_S:
            self._written_s = self._now_s()
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            with contextlib.suppress(OSError):
                write_json(self._path, {"time": now, "left_s": self._left_s(), **self._facts})


def read_heartbeat(paths: RunPaths) -> dict[str, Any]:
    """What the file says; nothing where there is none, or a damaged one."""
    try:
        said = json.loads(paths.heartbeat.read_text(encoding="utf-8"))
        datetime.fromisoformat(said["time"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return dict(said)
