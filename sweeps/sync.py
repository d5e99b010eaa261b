"""python -m sweeps.sync RUN: the event log is replayed into W&B, where runs are missing there."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from sweeps.checks import sweep_json
from sweeps.cli import JsonFlag, Result, parse, run_command
from sweeps.records.paths import RunPaths
from sweeps.records.run_lock import lock_run
from sweeps.tracking.follow_log import Trackers
from sweeps.tracking.wandb_tracker import WandbTracker, resolve_mode
from trainables.config import Metric
from trainables.errors import SweepAborted

PROG = "python -m sweeps.sync"


@dataclass(frozen=True, kw_only=True)
class SyncArgs:
    """Writes from the event log which W&B runs of a sweep are missing, unfinished or damaged."""

    run: tyro.conf.Positional[Path]
    """Folder of the sweep, e.g. runs/samsum."""
    wandb: Literal["auto", "online", "offline"] = "auto"
    """online also sends runs that were written offline; auto is online where a login is found."""
    json: JsonFlag = False


def main(argv: Sequence[str] | None = None) -> Result:
    """Replays the log of a sweep that no process is working on.

    Raises:
        SweepAborted: there is no such run, it is being worked on, or it cannot be read.
    """
    args = parse(SyncArgs, sys.argv[1:] if argv is None else argv, PROG)
    paths = RunPaths(args.run.absolute())
    if not (paths.sweep_json.is_file() and paths.events.is_file()):
        raise SweepAborted(f"there is no sweep in {paths.folder}", f"{PROG} runs/NAME")
    fix = "sync with the version of this project that wrote it"
    config = sweep_json.read_config(paths, ("sweep_id", "name", "metric"), fix)
    record = sweep_json.read(paths)
    metric = Metric(name=record["metric"]["name"], mode=record["metric"]["mode"])
    with lock_run(paths):
        mode = resolve_mode(args.wandb, is_tiny=False)
        if mode == "disabled":
            raise SweepAborted("WANDB_MODE is disabled", "unset it, or give --wandb")
        tracker = WandbTracker(config, mode, paths, metric, record["name"], record["sweep_id"])
        Trackers(paths, [tracker]).finish()
    if tracker.mode != mode:
        raise SweepAborted(f"W&B could not be written {mode}", "repeat the command later")
    wandb_folder = paths.folder / "wandb"
    upload = f"; upload it with: wandb sync {wandb_folder}/offline-run-*"
    print(f"replayed {paths.events} {mode}{upload if mode == 'offline' else ''}")
    return Result({"run": paths.folder, "mode": mode, "wandb": wandb_folder})


if __name__ == "__main__":
    run_command(main)
