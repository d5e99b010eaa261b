"""A disk of the sweep's own that can be filled."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sweeps.cli import EXIT_DONE, EXIT_USER_ERROR
from tests.benchmarks.torture.args import TortureArgs
from tests.benchmarks.torture.tortured_sweep import STALL_S, Fault, TorturedSweep
from tests.sweeps import small_sweep
from trainables.errors import SweepAborted

DISK_MIB = 512
OWN_MOUNTS = "TORTURE_OWN_MOUNTS"
"""Set where mounts are seen by nobody else."""


def fill_until_stopped(sweep: TorturedSweep, await_moment: Callable[[TorturedSweep], None]) -> None:
    """Leaves no byte free until the sweep has stopped, which must say so, and resumes it.

    A sweep that ends meanwhile had nothing more to write; it goes on with more trials.

    Raises:
        Fault: it goes on for ever, or does not say what is wrong and how to resume.
    """
    while True:
        await_moment(sweep)
        if sweep.has_ended:
            sweep.go_on()
            continue
        sweep.say(f"the disk fills, {sweep.progress()}")
        code = _code_on_full_disk(sweep)
        if code != EXIT_DONE:
            break
        sweep.go_on()
    output = sweep.output
    if code != EXIT_USER_ERROR or "error: " not in output or "--resume" not in output:
        raise Fault(f"a full disk ended the sweep with code {code} (None: not at all):\n{output}")
    error = next(line for line in output.splitlines() if line.startswith("error: "))
    sweep.hit("disk")
    sweep.say(f"the sweep stopped: {error}")
    sweep.start()


@contextlib.contextmanager
def runs_dir(args: TortureArgs) -> Iterator[Path]:
    """The folder for the sweep, on a disk of its own if that is to be filled."""
    if args.runs_dir is not None:
        args.runs_dir.mkdir(parents=True, exist_ok=True)
    folder = args.runs_dir or Path(tempfile.mkdtemp(prefix="torture-"))
    if args.fill_disk:
        size = f"size={DISK_MIB}m"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        if args.fill_disk:
            subprocess.run(["umount", "--lazy", folder], check=True)
        if args.runs_dir is None:
            shutil.rmtree(folder, ignore_errors=True)


def has_own_mounts() -> bool:
    """Whether a mount of this process is seen by nobody else."""
    return OWN_MOUNTS in os.environ


def in_own_mounts(words: Sequence[str]) -> int:
    """This command where a mount is seen by nobody else; without root in a user namespace.

    Raises:
        SweepAborted: this machine lets a user mount nothing.
    """
    ways = [["unshare", "--mount"], ["unshare", "--mount", "--user", "--map-root-user"]]
    unshare = next((way for way in ways if _may_mount(way)), None)
    if unshare is None:
        raise SweepAborted(
            "--fill-disk needs a file system of its own, and none may be mounted here",
            "run it as root, allow user namespaces, or leave --fill-disk out",
        )
    command = [*unshare, sys.executable, "-m", "tests.benchmarks.torture", *words]
    environment = os.environ | {OWN_MOUNTS: "1"}
    return subprocess.run(command, check=False, cwd=small_sweep.PROJECT, env=environment).returncode


def _may_mount(unshare: Sequence[str]) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        trial = [*unshare, "mount", "-t", "tmpfs", "tmpfs", folder]
        return subprocess.run(trial, check=False, capture_output=True).returncode == 0


def _code_on_full_disk(sweep: TorturedSweep) -> int | None:
    """The driver's exit code with no byte free; None if it does not end."""
    assert sweep.driver is not None
    filler = sweep.runs_dir / "filler"
    deadline_s = time.monotonic() + STALL_S
    while sweep.driver.poll() is None and time.monotonic() < deadline_s:
        _fill(filler)
        time.sleep(0.1)  # what the sweep removes meanwhile is filled again
    filler.unlink()
    return sweep.driver.poll()


def _fill(filler: Path) -> None:
    chunk_bytes = 2**20
    with filler.open("ab", buffering=0) as file:
        while chunk_bytes:
            try:
                file.write(bytes(chunk_bytes))
            except OSError:
                chunk_bytes //= 2
