"""Who works on a run: the lock that its process holds, and its heartbeat, which also tells the time
left, for where locks of other machines are not seen."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, FiniteFloat, TypeAdapter, ValidationError

from sweeps.records.paths import RunPaths, abort_if_unwritable
from trainables.errors import SweepAborted
from trainables.files import parse_json, to_strict_json

INTERVAL_S = 5.0
"""Between two writings of the heartbeat's file."""
FRESH_S = 60.0
"""A heartbeat of so many seconds ago is that of a process that lives."""
TRIES_S = 0.5
"""How long a lock is tried for: who asks whether it is held holds it for a moment."""
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""Numbers of an OSError of a file system without locks."""
Work = Literal["sweep", "sync"]


@dataclass(frozen=True, kw_only=True)
class LockOwner:
    """Who works on a run, or did last."""

    is_alive: bool | None
    """None where it cannot be told: of another machine, whose locks may not be seen here."""
    work: str = ""
    """"sweep" runs trials; "" is not known."""
    host: str = ""
    """Name of its machine, "" if not known."""
    pid: int = 0

    @property
    def is_driver(self) -> bool | None:
        """Whether it lives and runs the sweep's trials; None where that cannot be told."""
        return False if self.work == "sync" else self.is_alive


@dataclass(frozen=True, kw_only=True)
class Beat:
    """What the heartbeat's file says."""

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


@contextmanager
def lock_run(
    paths: RunPaths, work: Work = "sync", *, is_known_by_beat: bool = False
) -> Iterator[None]:
    """Holds the run's folder against other processes, and says in the lock's file who does.

    Locks of other machines may not be seen, and some file systems have none: there a sweep is known
    by its heartbeat.

    Args:
        is_known_by_beat: whether the folder was fetched from where others may have it from too.

    Raises:
        SweepAborted: another process holds it, or it may not be written.
    """
    with abort_if_unwritable(paths.lock):
        file = paths.lock.open("a+")
    with file:
        deadline_s = time.monotonic() + TRIES_S
        while not (is_locked := try_lock_if_any(file.fileno())):
            if is_locked is None:
                break
            if time.monotonic() > deadline_s:
                raise SweepAborted(
                    f"another process works on the run {paths.folder}",
                    "wait for it to end, or stop it first",
                )
            time.sleep(0.05)
        has_locks = is_locked is not None and not is_known_by_beat
        abort_if_driven(read_heartbeat(paths), paths.folder, has_locks=has_locks)
        owner = {"work": work, "host": socket.gethostname(), "pid": os.getpid()}
        file.truncate(0)
        file.write(json.dumps(owner))
        file.flush()
        yield


def try_lock_if_any(descriptor: int) -> bool | None:
    """Whether the lock is held now; None where the file system has none."""
    try:
        return _try_lock(descriptor, fcntl.LOCK_EX)
    except OSError as refused:
        if refused.errno not in NO_LOCKS:
            raise
        return None


def abort_if_driven(beat: Beat | None, folder: Path | str, *, has_locks: bool) -> None:
    """Refuses a run that a process drives whose lock is not seen here.

    Args:
        beat: of its last driver.
        folder: of the run.
        has_locks: whether a driver on this machine would hold the run's lock.

    Raises:
        SweepAborted: its heart beats.
    """
    here = socket.gethostname()
    if beat is None or not beat.host or not beat.is_fresh():
        return
    if beat.host == here and (has_locks or beat.pid == os.getpid() or not _is_process(beat.pid)):
        return  # it would hold the lock
    raise SweepAborted(
        f"process {beat.pid} on {beat.host} works on the run {folder}",
        f"stop it first; if it was killed, wait for {FRESH_S:.0f} s, then repeat the command",
    )


def _is_process(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def find_lock_owner(paths: RunPaths) -> LockOwner:
    """Who works on the run; without an answer for a machine whose locks are not seen here."""
    try:
        with paths.lock.open() as file:
            is_free = _try_lock(file.fileno(), fcntl.LOCK_SH)
            text = file.read()
    except FileNotFoundError:
        return LockOwner(is_alive=False)
    except OSError:  # of a file system without locks, or of a file of another user
        return LockOwner(is_alive=None)
    owner = {}
    with contextlib.suppress(ValueError):
        owner = parse_json(text or "{}")
    owner = owner if isinstance(owner, dict) else {}
    types = {"work": str, "host": str, "pid": int}
    known = {name: owner[name] for name, kind in types.items() if isinstance(owner.get(name), kind)}
    is_elsewhere = known.get("host", socket.gethostname()) != socket.gethostname()
    return LockOwner(is_alive=None if is_free and is_elsewhere else not is_free, **known)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def keep_heartbeat(
    paths: RunPaths, left_s: Callable[[], float | None], facts: Mapping[str, int]
) -> Iterator[None]:
    """Writes RUN/heartbeat.json every few seconds during the block, in a thread; then it goes."""
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
    content = {"time": now, "left_s": left_s, **who, **facts}
    tmp = paths.heartbeat.with_name(f".{paths.heartbeat.name}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        tmp.write_text(json.dumps(to_strict_json(content), indent=2), encoding="utf-8")
        tmp.replace(paths.heartbeat)


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
