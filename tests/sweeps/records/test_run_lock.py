"""Who may work on a run: by its lock, and by its heartbeat where locks are not seen."""

import errno
import fcntl
import json
import os
import socket
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sweeps.records import run_lock
from sweeps.records.paths import RunPaths
from sweeps.records.run_lock import (
    LockOwner,
    find_lock_owner,
    keep_heartbeat,
    lock_run,
    read_heartbeat,
)
from tests.nfs_locks import lock_as_nfs
from trainables.errors import SweepAborted

FACTS = {"num_gpus": 1, "num_packs": 1, "slots_per_gpu": 8}


def write_beat(paths: RunPaths, host: str, pid: int, age_s: float = 5.0) -> None:
    at = (datetime.now(UTC) - timedelta(seconds=age_s)).isoformat()
    said = {"time": at, "left_s": None, "host": host, "pid": pid, **FACTS}
    paths.heartbeat.write_text(json.dumps(said))


def is_taken(paths: RunPaths) -> bool:
    try:
        with lock_run(paths, "sweep"):
            return False
    except SweepAborted as refused:
        assert "works on the run" in refused.error
        return True


def test_a_run_that_another_machine_drives_is_not_taken(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    write_beat(paths, "elsewhere", 7)
    assert is_taken(paths)
    write_beat(paths, "elsewhere", 7, age_s=61.0)
    assert not is_taken(paths)
    write_beat(paths, socket.gethostname(), os.getppid())  # it would hold the lock
    assert not is_taken(paths)


def test_where_there_are_no_locks_the_heartbeat_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    paths, here = RunPaths(tmp_path), socket.gethostname()
    assert not is_taken(paths)
    write_beat(paths, here, os.getppid())
    assert is_taken(paths)
    write_beat(paths, here, 2**22 + 1)  # no process
    assert not is_taken(paths)


def test_locks_of_nfs_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock_as_nfs(monkeypatch)
    paths = RunPaths(tmp_path)
    with lock_run(paths, "sweep"):
        assert find_lock_owner(paths).is_driver and is_taken(paths)
    assert find_lock_owner(paths).is_driver is False and not is_taken(paths)


def test_a_heart_beats_by_itself_until_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lock, "INTERVAL_S", 0.05)
    paths, times = RunPaths(tmp_path), set()
    with keep_heartbeat(paths, lambda: 42.0, FACTS):
        deadline_s = time.monotonic() + 10.0
        while len(times) < 3 and time.monotonic() < deadline_s:
            if (beat := read_heartbeat(paths)) is not None:
                assert (beat.left_s, beat.pid) == (42.0, os.getpid())
                times.add(beat.time)
    assert len(times) == 3 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "damage", [{"time": "2026-01-01T00:00:00"}, {"left_s": "soon"}, {"num_packs": None}]
)
def test_a_damaged_heartbeat_is_none(tmp_path: Path, damage: dict[str, Any]) -> None:
    paths = RunPaths(tmp_path)
    write_beat(paths, "elsewhere", 7)
    assert read_heartbeat(paths) is not None
    paths.heartbeat.write_text(json.dumps(json.loads(paths.heartbeat.read_text()) | damage))
    assert read_heartbeat(paths) is None


@pytest.mark.parametrize("text", ["", "5", "null", '"x"', '{"host": 7, "pid": "9"}', "[" * 100_000])
def test_a_lock_whose_text_is_damaged_has_an_owner_of_no_name(text: str, tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    paths.lock.write_text(text)
    assert find_lock_owner(paths) == LockOwner(is_alive=False)
