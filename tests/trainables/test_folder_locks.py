"""Who holds a lock is waited for, and no other user holds one."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.nfs_locks import lock_as_nfs
from trainables.errors import SweepAborted
from trainables.folder_locks import find_lock, hold_writers_lock, lock_folder, wait_for_writers

WRITER = """
import sys, time
from pathlib import Path
from trainables.folder_locks import hold_writers_lock
with hold_writers_lock(Path(sys.argv[1])):
    print("holds it", flush=True)
    time.sleep(60)
"""


def test_writers_are_waited_for_until_they_die_and_lock_nothing_on_shared_storage(
    tmp_path: Path,
) -> None:
    """Several hold the lock at once. NFSv4 refuses a shared lock on a file that is not read, and
    other storage has none."""
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None and writer.stdout.readline()
        with hold_writers_lock(tmp_path):
            pass
        began_s = time.monotonic()
        wait_for_writers(tmp_path, 0.5)
        assert time.monotonic() - began_s >= 0.5
        writer.kill()
        writer.wait()
        wait_for_writers(tmp_path, 60.0)
        assert time.monotonic() - began_s < 30
    assert not list(tmp_path.iterdir())


def test_locks_of_nfs_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock_as_nfs(monkeypatch)
    with hold_writers_lock(tmp_path), hold_writers_lock(tmp_path):
        pass
    with lock_folder(tmp_path / "t0000"):
        wait_for_writers(tmp_path, 0.0)


def test_a_folder_of_locks_that_another_user_made_first_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    locks = find_lock(tmp_path).parent
    assert locks.parent == tmp_path and locks.stat().st_mode & 0o777 == 0o700

    def check_refused() -> None:
        with pytest.raises(SweepAborted) as refused, hold_writers_lock(tmp_path):
            pass
        assert str(locks) in refused.value.error and "TMPDIR" in refused.value.fix

    locks.chmod(0o777)
    check_refused()
    locks.chmod(0o700)
    if os.getuid() == 0:
        os.chown(locks, 12345, 12345)
        check_refused()
    locks.rmdir()
    (tmp_path / "theirs").mkdir(mode=0o700)
    locks.symlink_to(tmp_path / "theirs")
    check_refused()
    assert not list((tmp_path / "theirs").iterdir())
