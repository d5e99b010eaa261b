"""A whole sweep, run and timed as a user's command, for benchmarks that compare sweeps."""

import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from sweeps.records.paths import RunPaths


@dataclass(frozen=True, kw_only=True)
class TimedSweep:
    """A sweep that has ended, and what it took in seconds."""

    paths: RunPaths
    command_s: float
    """The whole command."""
    driver_cpu_s: float
    """CPU of the driver's process alone."""
    children_cpu_s: float
    """CPU of the processes that it has started and waited for."""


@contextmanager
def run_timed(flags: Sequence[str]) -> Iterator[TimedSweep]:
    """Runs python -m sweeps.run with these flags; the run's folder goes with the block.

    Raises:
        RuntimeError: the sweep fails; its output is in the message.
    """
    with tempfile.TemporaryDirectory(prefix="timed-") as name:
        folder = Path(name)
        command = [sys.executable, "-m", "sweeps.run", *flags]
        command += ["--runs-dir", name, "--name", "timed"]
        env = os.environ | {"RAY_TMPDIR": name}  # no cluster of this machine's is joined
        began_s = time.monotonic()
        with (folder / "output").open("wb") as output:
            driver = subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT)
        os.waitid(os.P_PID, driver.pid, os.WEXITED | os.WNOWAIT)  # leaves its CPU times to be read
        command_s = time.monotonic() - began_s
        cpu = psutil.Process(driver.pid).cpu_times()
        if driver.wait() != 0:
            said = (folder / "output").read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"{shlex.join(command)} failed:\n{said}")
        yield TimedSweep(
            paths=RunPaths(folder / "timed"),
            command_s=round(command_s, 3),
            driver_cpu_s=round(cpu.user + cpu.system, 2),
            children_cpu_s=round(cpu.children_user + cpu.children_system, 2),
        )
