"""Many tortures at once, each in a process on its own share of the cores."""

import os
import queue
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

from tests.benchmarks.torture.args import TortureArgs
from tests.benchmarks.torture.result import list_done
from tests.sweeps import small_sweep
from trainables.shell import write_flag

LEAST_CORES = 2
ALONE = ("seed", "num_runs", "at_once", "runs_dir")
"""Fields that are not handed on."""


def run_all(args: TortureArgs) -> list[int]:
    """The exit codes of the tortures with the seeds from args.seed on that have no result yet."""
    shares: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(args.at_once):
        shares.put(number)

    def run(seed: int) -> int:
        number = shares.get()
        try:
            return _run_torture(
                args, seed, choose_cores(sorted(os.sched_getaffinity(0)), number, args.at_once)
            )
        finally:
            shares.put(number)

    with ThreadPoolExecutor(args.at_once) as pool:
        seeds = range(args.seed, args.seed + args.num_runs)
        done = list_done(args.results, args) if args.results else set()
        return list(pool.map(run, [seed for seed in seeds if seed not in done]))


def choose_cores(cores: Sequence[int], number: int, num_shares: int) -> list[int]:
    """The cores of one run: as many as each can have twice over, so that none lies idle."""
    width = min(len(cores), max(LEAST_CORES, -(-2 * len(cores) // num_shares)))
    first = number * len(cores) // num_shares
    return sorted(cores[(first + n) % len(cores)] for n in range(width))


def list_words(args: TortureArgs, seed: int) -> list[str]:
    words = ["--seed", str(seed)]
    for field in fields(args):
        value = getattr(args, field.name)
        if field.name not in ALONE and value != field.default:
            words += write_flag(field.name, value)
    return words


def _run_torture(args: TortureArgs, seed: int, cores: Sequence[int]) -> int:
    command = [sys.executable, "-m", "tests.benchmarks.torture", *list_words(args, seed)]
    process = subprocess.Popen(command, cwd=small_sweep.PROJECT)
    os.sched_setaffinity(process.pid, cores)
    return process.wait()
