"""What the driver costs in a large sweep, over stand-ins for packs and for trials' processes.

python -m tests.benchmarks.scale --trials 1000 --packs 64 --out FILE

Nothing is trained, and values are invented. All that the driver does is a sweep's own: Tune's loop
with its placement groups, futures and saves, the controller, Optuna, ASHA, the event log, the pool
of packs, the lines of progress, the estimate of the time left, and the trackers' process. The
database of the study is held by another connection for the first minute, while that process wants
to write it. stand_ins.py says what is replaced.
"""

import inspect
import io
import json
import math
import os
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import psutil
import ray
from rich.console import Console

from cluster.find import set_ray_defaults
from search_spaces.lora import LoraSpace
from sweeps.cli import parse, run_command
from sweeps.control import ray_tuner
from sweeps.control.controller import TrialController
from sweeps.control.gpu_places import GpuPlaces
from sweeps.control.pack_pool import PackPool
from sweeps.control.stages import open_search
from sweeps.control.startup_gate import StartupGate
from sweeps.control.steering import Steering
from sweeps.cost.eta import Eta
from sweeps.records.events import EventLog
from sweeps.records.paths import RunPaths
from sweeps.records.request_file import RequestReader
from sweeps.tracking.progress import ProgressTable
from sweeps.tracking.run_values import TrackedSweep
from sweeps.tracking.tracker_process import run_trackers, start_trackers
from tests.benchmarks.scale import stand_ins
from tests.describe_run import describe_run
from tests.sweeps.invented_sweep import METRIC
from tests.sweeps.small_costs import make_model
from trainables.files import write_atomic

PROG = "python -m tests.benchmarks.scale"
NUM_CPUS = 8
"""That Ray may reserve: a placement group of 0.01 for each of 334 trials is more than 3."""


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


class Costs:
    """Seconds of the driver's thread, by call, and where it stood then."""

    def __init__(self) -> None:
        self.cpu_s: list[float] = []
        self.wall_s: list[float] = []
        self.ends: list[tuple[float, float]] = []
        """The thread's clock and the wall's after each call."""
        self.memory_mib: list[int] = []
        """After every 500th call."""

    def time(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps a function, each call of which counts."""

        def timed(*args: Any) -> Any:
            cpu_s, wall_s = time.thread_time(), time.monotonic()
            returned = call(*args)
            self.ends.append((time.thread_time(), time.monotonic()))
            self.cpu_s.append(self.ends[-1][0] - cpu_s)
            self.wall_s.append(self.ends[-1][1] - wall_s)
            if len(self.ends) % 500 == 0:
                self.memory_mib.append(int(psutil.Process().memory_info().rss) >> 20)
            return returned

        return timed

    def describe(self) -> dict[str, float]:
        """Milliseconds a call."""
        costs: dict[str, float] = {"number": len(self.cpu_s)}
        for name, values in (("cpu", sorted(self.cpu_s)), ("wall", sorted(self.wall_s))):
            costs[f"{name}_mean_ms"] = round(1e3 * sum(values) / len(values), 3)
            costs[f"{name}_p95_ms"] = round(1e3 * values[int(0.95 * (len(values) - 1))], 3)
            costs[f"{name}_max_ms"] = round(1e3 * values[-1], 3)
        return costs


def main(argv: Sequence[str] | None = None) -> None:
    words = list(sys.argv[1:] if argv is None else argv)
    args = parse(ScaleArgs, words, PROG)
    with tempfile.TemporaryDirectory() as folder:
        measured = measure_sweep(Path(folder), args.trials, args.packs, args.lock_s)
    facts = (
        describe_run(PROG, words)
        | {"load": os.getloadavg(), "stand_ins": inspect.getdoc(stand_ins)}
        | measured
    )
    print(json.dumps(facts, indent=2))
    if args.out is not None:
        write_atomic(args.out, json.dumps(facts, indent=2) + "\n")


def measure_sweep(folder: Path, num_trials: int, num_packs: int, lock_s: float) -> dict[str, Any]:
    """Drives a whole search in folder."""
    most_at_once = max(2, math.ceil(num_trials / 3))
    model = make_model(
        num_packs=num_packs, concurrency=most_at_once, num_trials=num_trials, max_steps=27
    )
    model.config = config = replace(model.config, space=LoraSpace(), start_points=())
    paths = RunPaths(folder)
    search = open_search(config, METRIC, paths, config.name, [], is_resumed=False)
    eta = Eta(model)
    console = Console(file=io.StringIO(), width=200)
    progress = ProgressTable(
        METRIC, num_trials, config.max_steps, [], eta.compute_left_s, console=console
    )
    log = EventLog(paths.events)
    controller = TrialController(config, paths, METRIC, search, log, (eta, progress))
    proposals, reports = Costs(), Costs()
    search.propose = proposals.time(search.propose)  # type: ignore[method-assign]
    controller.report = reports.time(controller.report)  # type: ignore[method-assign]
    steering = Steering(controller, paths, log, [], RequestReader(paths, []))
    tracked = TrackedSweep(
        config=replace(config, track="optuna"),
        wandb_mode="disabled",
        paths=paths,
        metric=METRIC,
        name=config.name,
        sweep_id="",
    )
    locked = sqlite3.connect(paths.optuna_db, isolation_level=None, check_same_thread=False)
    locked.execute("BEGIN EXCLUSIVE")
    unlock = threading.Timer(lock_s, lambda: locked.execute("COMMIT"))
    unlock.start()
    set_ray_defaults()
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # its GPUs are in name only
    ray.init(
        address="local",
        num_cpus=NUM_CPUS,
        num_gpus=num_packs,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    try:
        with (
            start_trackers(tracked.paths, tracked.config.trackers) as trackers,
            run_trackers(trackers, tracked),
            stand_ins.start_packs(config.rungs, num_packs) as packs,
        ):
            pool = PackPool(
                lambda number, *_: packs[number], num_packs, places=GpuPlaces(has_gpu=True), log=log
            )
            gate = StartupGate(controller, pool, eta.predict)
            controller.resume([])
            gate.close()
            began = time.thread_time(), time.monotonic()
            with progress:
                ray_tuner.run_trials(
                    controller,
                    model.allocation,
                    pool,
                    gate,
                    eta,
                    steering,
                    folder=paths.folder,
                    max_failures=3,
                )
            ended = time.thread_time(), time.monotonic()
    finally:
        ray.shutdown()
    written_s = time.monotonic() - ended[1]
    unlock.join()
    written = optuna.load_study(study_name=config.name, storage=paths.study_url)
    states = [trial.state.name for trial in written.get_trials(deepcopy=False)]
    first_s = proposals.ends[0][0] - proposals.cpu_s[0]
    loop_s = reports.ends[-1][0] - first_s
    return {
        "num_trials": num_trials,
        "num_packs": num_packs,
        "at_once": most_at_once,
        "proposals": proposals.describe(),
        "reports": reports.describe(),
        "loop": {
            # From the first proposal to the last report, without the proposals: all of Tune's
            # steps, the start and the end of each trial, and the reports above.
            "cpu_ms_a_report": round(1e3 * (loop_s - sum(proposals.cpu_s)) / len(reports.ends), 3),
            "cpu_s": round(loop_s, 1),
            "cpu_s_before": round(first_s - began[0], 1),
            "cpu_s_after": round(ended[0] - reports.ends[-1][0], 1),
            "wall_s": round(ended[1] - began[1], 1),
        },
        "first_300_proposals": {
            "cpu_s": round(proposals.ends[:300][-1][0] - first_s, 3),
            "wall_s": round(proposals.ends[:300][-1][1] - began[1], 3),
        },
        "study_written_after_s": round(written_s, 1),
        "study_states": {state: states.count(state) for state in sorted(set(states))},
        "memory_mib_every_500_reports": reports.memory_mib,
        "events_kib": paths.events.stat().st_size // 1024,
    }


if __name__ == "__main__":
    run_command(main)
