"""What dies when: seeded kinds, moments and victims."""

import contextlib
import random
import subprocess
import time

import psutil

from sweeps.cli import EXIT_DONE
from sweeps.config import from_json
from sweeps.finals import finalists
from sweeps.records.paths import RunPaths
from sweeps.records.run import read_record
from tests.benchmarks.torture import disk
from tests.benchmarks.torture.args import TortureArgs
from tests.benchmarks.torture.nodes import HEAD
from tests.benchmarks.torture.tortured_sweep import STALL_S, Fault, TorturedSweep
from trainables.config import Metric

LONGEST_DELAY_S = 4.0
"""A kill comes up to this long after what it waits for."""
LONGEST_WAIT_S, NODES_WAIT_S = 10.0, 45.0
"""How long a kill waits for news: none comes while the winner is tested and written. A cluster's
trials are longer in coming back."""
PROGRESS_FRAC = 0.7
"""Share of the kills that wait for news in the log; the others may hit what is still loading."""
HEAD_TIMEOUT_S = 120.0
"""How long a driver may take to end once its cluster's head is gone."""
RESUME = "go on with: python -m sweeps.run"
"""What a driver says that ends before its sweep."""
NOT_JOINED = "the Ray cluster at RAY_ADDRESS="
"""What one says that had not found its cluster yet; it has begun nothing."""
METRIC = Metric(name="rougeLsum")


def plan_hits(args: TortureArgs, random_: random.Random) -> list[str]:
    """What is hit, in order; one of each kind at least, and a driver last."""
    kinds = list(args.shares)
    drawn = random_.choices(kinds, list(args.shares.values()), k=args.kills - len(kinds))
    hits = [*(kind for kind in kinds if kind != "driver"), *drawn]
    random_.shuffle(hits)
    for kind in ["disk"] * args.fill_disk + ["cut"] * (args.cut_s > 0):
        hits.insert(random_.randint(1, len(hits)), kind)
    return [*hits, "driver"]


def kill_all(sweep: TorturedSweep) -> None:
    """Starts the sweep, kills as planned, and lets it come to its end.

    The last kill is the driver's once all trials have ended, while the winner is tested and
    written.

    Raises:
        Fault: the sweep hangs or ends with an error.
    """
    if sweep.nodes is not None:
        sweep.nodes.start()
    sweep.start()
    *hits, _ = plan_hits(sweep.args, sweep.random)
    for hit in hits:
        if hit == "disk":
            disk.fill_until_stopped(sweep, await_moment)
        else:
            await_moment(sweep)
            kill(sweep, hit)
    sweep.wait_until(lambda: _has_trained_all(sweep))
    time.sleep(sweep.random.uniform(0.0, LONGEST_DELAY_S))
    kill(sweep, "driver")
    sweep.wait_until(lambda: sweep.has_ended)
    sweep.check_done()


def await_moment(sweep: TorturedSweep) -> None:
    """A random moment: mostly after news in the log, with a delay."""
    delay_s = sweep.random.uniform(0.0, LONGEST_DELAY_S)
    waits = sweep.random.random() < PROGRESS_FRAC
    longest_s = NODES_WAIT_S if sweep.nodes else LONGEST_WAIT_S
    known, deadline_s = sweep.count_news(), time.monotonic() + longest_s
    while waits and time.monotonic() < deadline_s and not sweep.has_ended:
        waits = sweep.count_news() <= known
        time.sleep(0.02)
    time.sleep(delay_s)


def kill(sweep: TorturedSweep, kind: str) -> None:
    """Hits one thing of this kind, once there is one; a sweep that has ended goes on first.

    Raises:
        Fault: none appears, or the sweep has ended with an error.
    """
    deadline_s = time.monotonic() + STALL_S
    while time.monotonic() < deadline_s:
        if sweep.has_ended:
            sweep.ask_for_more()
            await_moment(sweep)
        if victims := _list_victims(sweep, kind):
            victim = sweep.random.choice(victims)
            with contextlib.suppress(psutil.NoSuchProcess):
                line = f"{kind:12} {victim:7}, {sweep.describe_progress()}"
                _strike_victim(sweep, kind, victim)
                sweep.record_hit(kind)
                sweep.say(line)
                _resume_sweep(sweep, kind)
                return
        time.sleep(0.05)
    progress = sweep.describe_progress()
    raise Fault(f"no {kind} process appeared for {STALL_S:.0f} s: {progress}\n{sweep.output}")


def _list_victims(sweep: TorturedSweep, kind: str) -> list[int]:
    """Process ids of trials or packs, or numbers of nodes."""
    if kind in ("trial", "pack"):
        return [process.pid for process in sweep.list_processes(kind)]
    if kind == "driver":
        return [sweep.driver.pid] if sweep.driver else []
    assert sweep.nodes is not None
    return [HEAD] if kind == "head" else sorted(sweep.nodes.list_workers())


def _strike_victim(sweep: TorturedSweep, kind: str, victim: int) -> None:
    nodes = sweep.nodes
    if kind in ("trial", "pack", "driver"):
        psutil.Process(victim).kill()
        return
    assert nodes is not None
    match kind:
        case "node":
            nodes.kill(victim)
        case "raylet":
            nodes.kill_raylet(victim)
        case "leaving node":
            nodes.leave(victim)
        case "head":
            nodes.lose_head()
        case "cut":
            nodes.cut(victim, sweep.args.cut_s)


def _resume_sweep(sweep: TorturedSweep, kind: str) -> None:
    """Starts another driver where this hit has ended the present one.

    Raises:
        Fault: without its cluster's head it goes on for ever, or does not say how to resume.
    """
    if kind not in ("driver", "head"):
        return
    assert sweep.driver is not None
    if kind == "head":
        assert sweep.nodes is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            sweep.driver.wait(HEAD_TIMEOUT_S)
        is_told = RESUME in sweep.output or NOT_JOINED in sweep.output
        if sweep.driver.poll() != EXIT_DONE and not is_told:
            code = sweep.driver.poll()
            raise Fault(f"the head's loss ended the sweep with code {code}:\n{sweep.output}")
        sweep.nodes.start()
        if sweep.driver.poll() == EXIT_DONE:
            return
    sweep.driver.wait()
    sweep.start()


def _has_trained_all(sweep: TorturedSweep) -> bool:
    paths = RunPaths(sweep.folder)
    if not paths.sweep_json.exists():
        return False
    config = from_json(read_record(paths)["config"])
    return finalists.is_over(config, sweep.read_events(), METRIC)
