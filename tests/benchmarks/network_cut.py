"""What a network cut costs a sweep that W&B follows: nothing is lost, and no trial waits for it.

python -m tests.benchmarks.network_cut --recipe-flags "samsum --tiny" --cut-s 60 --out FILE

Sweeps run in turn without and with a cut, each online at a local server that speaks W&B's API. In a
cut it takes requests and does not answer, from the first report on; afterwards it breaks them off.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from sweeps.cli import parse, run_command
from sweeps.records.events import read_events
from tests.describe_run import describe_run
from tests.sweeps.servers.wandb_server import WandbServer
from trainables.config import require
from trainables.files import write_atomic

PROG = "python -m tests.benchmarks.network_cut"
Waits = dict[tuple[str, str, int], float]
"""Seconds in which a trial was neither trained nor scored before an event, by trial, kind and
step."""


@dataclass(frozen=True, kw_only=True)
class NetworkCutArgs:
    """Cuts the network between running sweeps and W&B, and compares them with uncut ones.

    The exit code is 1 if a report is lost, or twice there.
    """

    recipe_flags: str = "samsum --tiny"
    """What python -m sweeps.run is given, in quotes: trials of more than cut_s in all."""
    cut_s: float = 60.0
    """How long the network is cut, from the first report on."""
    num_pairs: int = 2
    """Sweeps of each kind."""
    out: Path | None = None
    """A JSON file for all numbers; None only prints them."""

    def __post_init__(self) -> None:
        for name in ("num_pairs", "cut_s"):
            require(getattr(self, name) > 0, name, getattr(self, name), "above 0")


@dataclass(frozen=True, kw_only=True)
class Watched:
    """One sweep."""

    cut_s: float
    """How long the network was cut; 0 without a cut."""
    num_events: int
    """Events of trials while the network was cut."""
    waits: Waits
    faults: list[str]
    """What W&B lacks in the end, or has twice."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs all sweeps, and says by how much the cut held any trial up."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = parse(NetworkCutArgs, words, PROG)
    sweeps = [
        watch_sweep(args.recipe_flags, cut_s)
        for _ in range(args.num_pairs)
        for cut_s in (0.0, args.cut_s)
    ]
    uncut = [sweep.waits for sweep in sweeps if not sweep.cut_s]
    results = [
        {
            "cut_s": round(sweep.cut_s, 1),
            "events_in_the_cut": sweep.num_events,
            "largest_delay_s": find_largest_delay(sweep.waits, uncut),
            "faults": sweep.faults,
        }
        for sweep in sweeps
    ]
    print(*map(json.dumps, results), sep="\n")
    if args.out is not None:
        facts = describe_run(PROG, words) | {"sweeps": results}
        write_atomic(args.out, json.dumps(facts, indent=1) + "\n")
    return int(any(sweep.faults for sweep in sweeps))


def watch_sweep(recipe_flags: str, cut_s: float) -> Watched:
    """Runs one sweep, and sends W&B afterwards what it did not get."""
    server, folder = WandbServer(), Path(tempfile.mkdtemp(prefix="cut-"))
    run = folder / "watched"
    env = os.environ | {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "a" * 40}
    env |= {"RAY_TMPDIR": str(folder)}  # no cluster of this machine's is joined
    flags = [*shlex.split(recipe_flags), "--runs-dir", str(folder), "--name", run.name]
    command = [sys.executable, "-m", "sweeps.run", *flags, "--wandb", "online"]
    with (folder / "output").open("wb") as output:
        sweep = subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT)
    began = ended = 0.0
    if cut_s:
        wait_for_report(run / "events.jsonl", sweep)
        began, server.is_silent = time.time(), True
        time.sleep(cut_s)
        server.end_outage()
        ended = time.time()
    if sweep.wait() != 0:
        raise RuntimeError(f"{shlex.join(command)} failed; its output is in {folder}")
    sync = [sys.executable, "-m", "sweeps.sync", str(run), "--wandb", "online"]
    subprocess.run(sync, env=env, stdout=subprocess.DEVNULL, check=True)
    server.stop()
    events = read_events(run / "events.jsonl")
    shutil.rmtree(folder)
    times = [datetime.fromisoformat(e["time"]).timestamp() for e in events if "trial_id" in e]
    return Watched(
        cut_s=ended - began,
        num_events=sum(began < time_s < ended for time_s in times),
        waits=list_waits(events),
        faults=list_faults(events, server),
    )


def wait_for_report(log: Path, sweep: "subprocess.Popen[bytes]") -> None:
    while not (log.exists() and any(e["kind"] == "report" for e in read_events(log))):
        if sweep.poll() is not None:
            raise RuntimeError(f"the sweep of {log.parent} ended before its first report")
        time.sleep(0.1)


def list_waits(events: Sequence[dict[str, Any]]) -> Waits:
    """How long each trial waited before each of its events: what a busy machine takes longer to
    train is no wait."""
    last: dict[str, tuple[datetime, float]] = {}
    waits: Waits = {}
    for event in events:
        if event["kind"] in ("trial_started", "report", "trial_ended"):
            name, at = event["trial_id"], datetime.fromisoformat(event["time"])
            before, busy_s = last.get(name, (at, 0.0))
            now_busy_s = event.get("seconds", busy_s)
            key = (name, event["kind"], event.get("step", 0))
            waits.setdefault(key, (at - before).total_seconds() - (now_busy_s - busy_s))
            last[name] = (at, now_busy_s)
    return waits


def find_largest_delay(waits: Waits, uncut: Sequence[Waits]) -> float:
    """By how much a wait is longer at most than its median without a cut."""
    usual = {key: median(g[key] for g in uncut if key in g) for key in set().union(*uncut)}
    return round(max(waits[key] - usual[key] for key in waits.keys() & usual.keys()), 3)


def list_faults(events: Sequence[dict[str, Any]], server: WandbServer) -> list[str]:
    """What the server lacks of the log, or has twice."""
    steps: dict[str, list[list[int]]] = {}
    for run_id, run in server.runs.items():
        rows = server.rows[run_id]
        steps.setdefault(run.facts["displayName"], []).append([row["_step"] for row in rows])
    logged: dict[str, set[int]] = {}
    for event in events:
        if event["kind"] == "report":
            logged.setdefault(event["trial_id"], set()).add(event["step"])
    faults = [
        f"{name} has the steps {steps.get(name)} instead of {sorted(wanted)}"
        for name, wanted in logged.items()
        if steps.get(name) != [sorted(wanted)]
    ]
    return faults + ["there is no summary"] * ("summary" not in steps)


if __name__ == "__main__":
    run_command(main)
