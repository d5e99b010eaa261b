"""A disk of the sweep's own that can be filled."""

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sweeps.cli import EXIT_DONE, EXIT_USER_ERROR
from tests.benchmarks.torture.args import TortureArgs
from tests.benchmarks.torture.tortured_sweep import STALL_S, Fault, TorturedSweep

DISK_MIB, NODES_DISK_MIB = 512, 2560
"""A cluster's nodes are refused that have less than 2 GiB left."""


def fill_until_stopped(sweep: TorturedSweep, await_moment: Callable[[TorturedSweep], None]) -> None:
    """Leaves no byte free until the sweep has stopped, which must say so, and resumes it.

    A sweep that ends meanwhile had nothing more to write; it goes on with more trials.

    Raises:
        Fault: it goes on for ever, or does not say what is wrong and how to resume.
    """
    while True:
        await_moment(sweep)
        if sweep.has_ended:
            sweep.ask_for_more()
            continue
        sweep.say(f"the disk fills, {sweep.describe_progress()}")
        code = _fill_until_driver_ends(sweep)
        if code != EXIT_DONE:
            break
        sweep.ask_for_more()
    output = sweep.output
    if code != EXIT_USER_ERROR or "error: " not in output or "--resume" not in output:
        raise Fault(f"a full disk ended the sweep with code {code} (None: not at all):\n{output}")
    error = next(line for line in output.splitlines() if line.startswith("error: "))
    sweep.record_hit("disk")
    sweep.say(f"the sweep stopped: {error}")
    sweep.start()


@contextlib.contextmanager
def open_runs_dir(args: TortureArgs) -> Iterator[Path]:
    """The folder for the sweep, on a disk of its own if that is to be filled."""
    if args.runs_dir is not None:
        args.runs_dir.mkdir(parents=True, exist_ok=True)
    folder = args.runs_dir or Path(tempfile.mkdtemp(prefix="torture-"))
    if args.fill_disk:
        size = f"size={NODES_DISK_MIB if args.nodes else DISK_MIB}m"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        if args.fill_disk:
            subprocess.run(["umount", "--lazy", folder], check=True)
        if args.runs_dir is None:
            shutil.rmtree(folder, ignore_errors=True)


def _fill_until_driver_ends(sweep: TorturedSweep) -> int | None:
    """The driver's exit code with no byte free; None if it does not end."""
    assert sweep.driver is not None
    filler = sweep.runs_dir / "filler"
    deadline_s = time.monotonic() + STALL_S
    while sweep.driver.poll() is None and time.monotonic() < deadline_s:
        _fill_disk(filler)
        time.sleep(0.1)  # what the sweep removes meanwhile is filled again
    filler.unlink()
    return sweep.driver.poll()


def _fill_disk(filler: Path) -> None:
    chunk_bytes = 2**20
    with filler.open("ab", buffering=0) as file:
        while chunk_bytes:
            try:
                file.write(bytes(chunk_bytes))
            except OSError:
                chunk_bytes //= 2
