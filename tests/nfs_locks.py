"""File locks as NFSv4 grants them."""

import errno
import fcntl
import os

import pytest

_flock = fcntl.flock
_REFUSED = {fcntl.LOCK_SH: os.O_WRONLY, fcntl.LOCK_EX: os.O_RDONLY}


def lock_as_nfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shared lock needs a file that is opened to be read, and an exclusive one a file that is
    opened to be written (Linux, fs/nfs/nfs4proc.c: nfs4_proc_lock)."""

    def flock(file: int, kind: int) -> None:
        mode = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE
        if _REFUSED.get(kind & ~fcntl.LOCK_NB) == mode:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        _flock(file, kind)

    monkeypatch.setattr(fcntl, "flock", flock)
