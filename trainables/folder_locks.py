"""Locks on the folders of trials, each a file on a disk of this machine."""

import fcntl
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trainables.errors import SweepAborted


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keeps a trial's folder to this process; waits for an earlier one that is still ending."""
    with find_lock(folder).open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def hold_writers_lock(checkpoints: Path) -> Iterator[None]:
    """Says meanwhile that this process may write to a sweep's checkpoints."""
    with find_lock(checkpoints).open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def wait_for_writers(checkpoints: Path, timeout_s: float) -> None:
    """Until no process of this machine holds the writers' lock, or the time is up.

    After a driver dies, its packs may live for some seconds more.
    """
    deadline_s = time.monotonic() + timeout_s
    with find_lock(checkpoints).open("a+") as file:
        while time.monotonic() < deadline_s:
            with suppress(BlockingIOError):
                return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            time.sleep(0.1)


def find_lock(folder: Path) -> Path:
    """The file of a folder's lock, on a disk of this machine.

    Storage that nodes share may have no locks, or keep those of a node that is gone. Writers on
    other nodes end with the job of their driver.

    Raises:
        SweepAborted: the folder of locks is another user's, who could hold any of them.
    """
    locks = Path(tempfile.gettempdir()) / f"qlora-sweeps-{os.getuid()}"
    with suppress(FileExistsError):
        locks.mkdir(mode=0o700)
    about = locks.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o022:
        raise SweepAborted(
            f"{locks} is no folder of this user alone, and locks are kept there",
            "have it removed, or name another temporary folder: TMPDIR=DIR",
        )
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()
    return locks / f"{name[:24]}.lock"
