"""Storage without file locks, or with those of NFSv4, and a node without the checkout hold up no
sweep."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.heads import run_heads, run_node
from tests.sweeps import small_sweep

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]
PROJECT = Path(__file__).resolve().parents[3]
LOCKS = """
import errno, fcntl, os
flock = fcntl.flock

def flock_as_there(file, kind):
    number = file if isinstance(file, int) else file.fileno()
    is_write_only = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
    if os.readlink(f"/proc/self/fd/{{number}}").startswith({folder!r}) and ({is_refused}):
        raise OSError({number}, os.strerror({number}))
    return flock(file, kind)

fcntl.flock = flock_as_there
"""
"""A file system's locks, in every process that finds it as sitecustomize. What NFSv4 refuses is
from Linux: fs/nfs/nfs4proc.c, nfs4_proc_lock."""
KINDS = {
    "no locks": ("errno.ENOSYS", "True"),
    "NFSv4": ("errno.EBADF", "kind & fcntl.LOCK_SH and is_write_only"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_storage_without_the_locks_of_a_local_disk_is_enough(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, is_refused = KINDS[kind]
    runs_dir, startup = tmp_path / "runs", tmp_path / "startup"
    runs_dir.mkdir()
    startup.mkdir()
    text = LOCKS.format(folder=str(runs_dir), number=number, is_refused=is_refused)
    (startup / "sitecustomize.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", f"{startup}{os.pathsep}{PROJECT}")
    code, output = small_sweep.run(runs_dir, "a", *small_sweep.FLAGS, "--num-trials", "2")
    assert code == 0, output
    code, output = small_sweep.resume(runs_dir, "a", "--num-trials", "3")
    assert code == 0, output
    small_sweep.check_whole(runs_dir / "a", "a", 3)
    rows = runs_dir / small_sweep.ROWS_NAME / "test.jsonl"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:2]))
    words = [str(runs_dir / "a"), "--input", str(rows), "--output", str(runs_dir / "said.jsonl")]
    subprocess.run([sys.executable, "-m", "sweeps.predict", *words], cwd=PROJECT, check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace is made by root")
def test_tiny_sweep_trains_on_a_node_without_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = (PROJECT / name for name in ("sweeps", "trainables", "search_spaces", "cluster"))
    hide = "".join(f"mount -t tmpfs none {folder}; " for folder in hidden)
    with (
        run_heads(tmp_path, num_cpus=0) as (address,),
        run_node(
            tmp_path, address, within=("unshare", "-m", "bash", "-ec", f'{hide}exec "$@"', "_")
        ),
    ):
        monkeypatch.setenv("RAY_ADDRESS", address)
        code, output = small_sweep.run(tmp_path, "a", *small_sweep.FLAGS, "--num-trials", "2")
    assert code == 0, output
    small_sweep.check_whole(tmp_path / "a", "a", 2)
