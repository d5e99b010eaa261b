"""Which process dies when: seeded kinds, moments and victims."""

import contextlib
import random
import time
from collections.abc import Callable
from typing import Literal

import psutil

from sweeps.checks import sweep_json
from sweeps.config import from_json
from sweeps.finals import finalists
from sweeps.records.paths import RunPaths
from tests.benchmarks.torture import disk
from tests.benchmarks.torture.args import LEAST_KILLS, TortureArgs
from tests.benchmarks.torture.tortured_sweep import STALL_S, Fault, TorturedSweep
from tests.sweeps import small_sweep
from trainables.config import Metric

Kind = Literal["trial", "pack", "driver"]
SHARES: dict[Kind, float] = {"trial": 0.5, "pack": 0.3, "driver": 0.2}
"""Of the kills. A driver's costs most: Ray starts again, and the pack with it."""
LONGEST_DELAY_S = 4.0
"""A kill comes up to this long after what it waits for."""
LONGEST_WAIT_S = 10.0
"""How long a kill waits for news: none comes while the winner is tested and written."""
PROGRESS_FRAC = 0.7
"""Share of the kills that wait for news in the log; the others may hit what is still loading."""
METRIC = Metric(name="rougeLsum")


def plan(args: TortureArgs, random_: random.Random) -> list[Kind | Literal["disk"]]:
    """What is hit, in order; one of each kind at least, and a driver last."""
    drawn = random_.choices(list(SHARES), list(SHARES.values()), k=args.kills - LEAST_KILLS)
    hits: list[Kind | Literal["disk"]] = ["trial", "pack", *drawn]
    random_.shuffle(hits)
    if args.fill_disk:
        hits.insert(random_.randint(1, len(hits)), "disk")
    return [*hits, "driver"]


def kill_all(sweep: TorturedSweep) -> None:
    """Starts the sweep, kills as planned, and lets it come to its end.

    The last kill is the driver's once all trials have ended, while the winner is tested and
    written.

    Raises:
        Fault: the sweep hangs or ends with an error.
    """
    sweep.start()
    *hits, _ = plan(sweep.args, sweep.random)
    for hit in hits:
        if hit == "disk":
            disk.fill_until_stopped(sweep, await_moment)
        else:
            await_moment(sweep)
            kill(sweep, hit)
    await_last_trial(sweep)
    kill(sweep, "driver")
    sweep.await_end()


def await_moment(sweep: TorturedSweep) -> None:
    """A random moment: mostly after news in the log, with a delay."""
    delay_s = sweep.random.uniform(0.0, LONGEST_DELAY_S)
    waits = sweep.random.random() < PROGRESS_FRAC
    known, deadline_s = sweep.num_news(), time.monotonic() + LONGEST_WAIT_S
    while waits and time.monotonic() < deadline_s and not sweep.has_ended:
        waits = sweep.num_news() <= known
        time.sleep(0.02)
    time.sleep(delay_s)


def await_last_trial(sweep: TorturedSweep) -> None:
    """A random moment once all trials have ended."""
    known, said_s = -1, time.monotonic()
    while not sweep.has_ended and not _has_trained_all(sweep):
        if sweep.num_news() != known:
            known, said_s = sweep.num_news(), time.monotonic()
        if time.monotonic() - said_s > STALL_S:
            raise Fault(f"the sweep hangs: {sweep.progress()}\n{sweep.output}")
        time.sleep(0.05)
    time.sleep(sweep.random.uniform(0.0, LONGEST_DELAY_S))


def kill(sweep: TorturedSweep, kind: Kind) -> None:
    """Kills one process of this kind, once there is one; a sweep that has ended goes on first.

    Raises:
        Fault: none appears, or the sweep has ended with an error.
    """
    deadline_s = time.monotonic() + STALL_S
    while time.monotonic() < deadline_s:
        if sweep.has_ended:
            sweep.go_on()
            await_moment(sweep)
        if victims := _victims(sweep, kind):
            victim = sweep.random.choice(victims)
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
                sweep.hit(kind)
                sweep.say(f"SIGKILL {kind:6} pid {victim.pid:7}, {sweep.progress()}")
                if kind == "driver":
                    _resume(sweep)
                return
        time.sleep(0.05)
    raise Fault(
        f"no {kind} process appeared for {STALL_S:.0f} s: {sweep.progress()}\n{sweep.output}"
    )


def _resume(sweep: TorturedSweep) -> None:
    assert sweep.driver is not None
    sweep.driver.wait()
    sweep.start()


def _victims(sweep: TorturedSweep, kind: Kind) -> list[psutil.Process]:
    """Processes of this kind below the driver, by age."""
    find: dict[Kind, Callable[[int], list[psutil.Process]]] = {
        "trial": small_sweep.trial_processes,
        "pack": small_sweep.pack_processes,
        "driver": lambda pid: [psutil.Process(pid)],
    }
    assert sweep.driver is not None
    try:
        return sorted(find[kind](sweep.driver.pid), key=lambda one: one.pid)
    except psutil.NoSuchProcess:  # one ended while they were listed
        return []


def _has_trained_all(sweep: TorturedSweep) -> bool:
    paths = RunPaths(sweep.folder)
    if not paths.sweep_json.exists():
        return False
    config = from_json(sweep_json.read(paths)["config"])
    return finalists.is_over(config, sweep.events(), METRIC)
