"""What the driver costs in a large sweep: controller, search, log and table, over stand-in packs.

python -m tests.benchmarks.scale --trials 1000 --packs 64 --out FILE

Nothing is trained, and Ray and Tune's loop are left out: each pack reports cohorts at random, and
values are invented. The controller, Optuna, ASHA, the event log, the lines of progress and the
estimate of the time left are the sweep's own. The database of the study is held by another
connection for the first minute, while the trackers' process wants to write it.
"""

import io
import json
import math
import platform
import random
import shlex
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import psutil
from rich.console import Console

from search_spaces.lora import LoraSpace
from sweeps.checks.environment import list_versions, read_git_commit
from sweeps.cli import parse, run_command
from sweeps.control.controller import TrialController
from sweeps.cost.eta import Eta
from sweeps.records.events import EventLog
from sweeps.records.paths import RunPaths
from sweeps.search.storage import open_storage
from sweeps.search.study import Search, num_startup_trials
from sweeps.tracking.progress import ProgressTable
from sweeps.tracking.run_values import TrackedSweep
from sweeps.tracking.tracker_process import run_trackers
from tests.sweeps.invented_sweep import METRIC, make_cohort
from tests.sweeps.small_costs import make_model, make_throughput
from trainables.config import TrialConfig
from trainables.files import write_atomic

PROG = "python -m tests.benchmarks.scale"


@dataclass(frozen=True, kw_only=True)
class ScaleArgs:
    """Measures what a proposal and a report cost the driver's thread."""

    trials: int = 1000
    """Trials of the search; a third of them at once, as in a sweep."""
    packs: int = 64
    """Packs that they are spread over."""
    lock_s: float = 60.0
    """Seconds for which another connection holds the database of the study."""
    out: Path | None = None
    """A JSON file for all numbers; None only prints them."""


@dataclass(kw_only=True)
class Costs:
    """Seconds of the driver's thread, by call."""

    cpu_s: list[float]
    wall_s: list[float]

    def time(self, call: Callable[[], Any]) -> Any:
        """What the call returns."""
        cpu_s, wall_s = time.thread_time(), time.perf_counter()
        returned = call()
        self.cpu_s.append(time.thread_time() - cpu_s)
        self.wall_s.append(time.perf_counter() - wall_s)
        return returned

    def describe(self) -> dict[str, float]:
        """Milliseconds a call."""
        found: dict[str, float] = {"number": len(self.cpu_s)}
        for name, values in (("cpu", sorted(self.cpu_s)), ("wall", sorted(self.wall_s))):
            found[f"{name}_mean_ms"] = round(1e3 * sum(values) / len(values), 3)
            found[f"{name}_p95_ms"] = round(1e3 * values[int(0.95 * (len(values) - 1))], 3)
            found[f"{name}_max_ms"] = round(1e3 * values[-1], 3)
        return found


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the sweep, and prints what it took as JSON."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = parse(ScaleArgs, words, PROG)
    facts = {
        "command": f"{PROG} {shlex.join(words)}",
        "commit": read_git_commit(),
        "machine": f"{platform.machine()}, {psutil.cpu_count()} cores, others at work on them",
        "versions": {name: v for name, v in list_versions().items() if name in ("optuna", "numpy")},
    }
    with tempfile.TemporaryDirectory() as folder:
        facts |= measure(Path(folder), args.trials, args.packs, args.lock_s)
    print(json.dumps(facts, indent=2))
    if args.out is not None:
        write_atomic(args.out, json.dumps(facts, indent=2) + "\n")


def measure(folder: Path, num_trials: int, num_packs: int, lock_s: float) -> dict[str, Any]:
    """Drives a whole search in folder."""
    model = make_model(num_packs=num_packs, num_trials=num_trials, max_steps=27)
    model.config = config = replace(model.config, space=LoraSpace(), start_points=())
    paths, began_s = RunPaths(folder), time.monotonic()
    open_storage(paths.study_url, config.name, METRIC, is_resumed=False)
    study = optuna.create_study(direction="maximize")
    search = Search(study, config.space, config.seed, num_startup_trials(num_trials))
    eta = Eta(model)
    eta.predict(make_throughput())
    console = Console(file=io.StringIO(), width=200)
    progress = ProgressTable(METRIC, num_trials, config.max_steps, [], eta.left_s, None, console)
    log = EventLog(paths.events)
    controller = TrialController(config, paths, METRIC, search, log, (eta, progress))
    locked = sqlite3.connect(paths.optuna_db, isolation_level=None, check_same_thread=False)
    locked.execute("BEGIN EXCLUSIVE")
    unlock = threading.Timer(lock_s, lambda: locked.execute("COMMIT"))
    unlock.start()
    trackers = ExitStack()
    tracked = TrackedSweep(
        config=replace(config, track="optuna"),
        wandb_mode="disabled",
        paths=paths,
        metric=METRIC,
        name=config.name,
        sweep_id="",
    )
    trackers.enter_context(run_trackers(tracked))
    proposals, reports = Costs(cpu_s=[], wall_s=[]), Costs(cpu_s=[], wall_s=[])
    memory_mib = [_measure_mib()]
    rng = random.Random(0)
    packs: list[dict[str, tuple[TrialConfig, int]]] = [{} for _ in range(num_packs)]
    most_at_once = max(2, math.ceil(num_trials / 3))
    while controller.num_left:
        while sum(map(len, packs)) < most_at_once and len(proposals.cpu_s) < num_trials:
            trial = proposals.time(controller.next_trial)
            min(packs, key=len)[trial.trial_id] = trial, 0
        pack = rng.choice([pack for pack in packs if pack])
        rung = min(rung for _, rung in pack.values())
        values = {
            trial_id: 3.0 * rung + rng.random() - abs(math.log(trial.params.learning_rate / 3e-4))
            for trial_id, (trial, at) in pack.items()
            if at == rung
        }
        for report in make_cohort(config.rungs[rung], values):
            decided = reports.time(partial(controller.report, report))
            trial, _ = pack.pop(report.trial_id)
            if decided[report.trial_id]:
                pack[report.trial_id] = trial, rung + 1
        if len(reports.cpu_s) // 500 >= len(memory_mib):
            memory_mib.append(_measure_mib())
    search_s = time.monotonic() - began_s
    trackers.close()
    unlock.join()
    states = [
        trial.state.name
        for trial in optuna.load_study(study_name=config.name, storage=paths.study_url).get_trials(
            deepcopy=False
        )
    ]
    return {
        "num_trials": num_trials,
        "num_packs": num_packs,
        "at_once": most_at_once,
        "proposals": proposals.describe(),
        "reports": reports.describe(),
        "first_300_proposals_wall_s": round(sum(proposals.wall_s[:300]), 3),
        "search_wall_s": round(search_s, 1),
        "study_written_after_s": round(time.monotonic() - began_s - search_s, 1),
        "study_states": {state: states.count(state) for state in sorted(set(states))},
        "memory_mib_every_500_reports": memory_mib,
        "events_kib": paths.events.stat().st_size // 1024,
    }


def _measure_mib() -> int:
    return int(psutil.Process().memory_info().rss) >> 20


if __name__ == "__main__":
    run_command(main)
