"""How a process is set up before it trains: its GPU, its cores, how it imports large packages."""

import gc
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import IO

COMPILES_NOTHING = {"TORCHDYNAMO_DISABLE": "1"}
"""Environment of a process with a pack. Otherwise bitsandbytes, which wraps what a CPU may run in
torch.compile, loads inductor at its import: a second."""


@contextmanager
def disable_gc() -> Iterator[None]:
    """Imports meanwhile are not interrupted by the collection of cyclic garbage, nor looked through
    by later ones: what modules are made of stays.

    Torch with transformers is imported in three quarters of the time; afterwards a full collection,
    which took up to a second, takes none.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def see_one_gpu() -> None:
    """Hides all GPUs but the first that this process may use, before it uses any.

    With several, transformers' Trainer divides every batch among them, which TRL refuses.
    """
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    os.environ["CUDA_VISIBLE_DEVICES"] = names.split(",")[0]


def count_cores() -> int:
    """Cores that this process may use: under Slurm or taskset fewer than the machine has, and
    threads beyond them would only wait for each other."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def make_cpu_environment() -> dict[str, str]:
    """Environment of a pack without a GPU: every core is the pack's, since its trials only wait.

    Threads that wait for each other sleep: spinning ones take a busy machine's cores from those
    that they wait for.
    """
    return {"OMP_NUM_THREADS": str(count_cores()), "OMP_WAIT_POLICY": "PASSIVE"}


def train_in_this_process(threads: Mapping[str, str]) -> None:
    """Sets up a command that trains or answers without Ray: one GPU, and threads as in a sweep, so
    that sums round alike, unless the user's environment names others."""
    for name, value in {**threads, "HF_HUB_DISABLE_TELEMETRY": "1"}.items():
        os.environ.setdefault(name, value)
    see_one_gpu()


def leave_signals_to_sweep() -> None:
    """Ctrl-C, and what schedulers send to all processes of a job, are for the sweep, which ends
    this process when it is done with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda *_: None)  # not ignored: its own processes would inherit that


def start_module(module: str, *words: str, stderr: IO[bytes] | None = None) -> Popen[bytes]:
    """Starts `python -m MODULE WORDS` of this project, on one thread. Its standard input is a pipe
    whose other end only this process has: however this one ends, the pipe does too.

    Args:
        stderr: where its errors go; None is where this process's do.

    Raises:
        OSError: no process can be started.
    """
    project = str(Path(__file__).parents[1])
    python_path = os.pathsep.join(filter(None, (project, os.environ.get("PYTHONPATH"))))
    return Popen(
        [sys.executable, "-m", module, *words],
        env=os.environ | {"PYTHONPATH": python_path, "OMP_NUM_THREADS": "1"},
        stdin=PIPE,
        stdout=DEVNULL,
        stderr=stderr,
        process_group=0,  # a terminal's Ctrl-C would end it with a traceback while it is loaded
    )
