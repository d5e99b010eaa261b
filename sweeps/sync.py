"""python -m sweeps.sync RUN: the event log is replayed into W&B and other trackers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro

from sweeps.checks import sweep_json
from sweeps.cli import JsonFlag, Result, parse, run_command
from sweeps.config import split_trackers
from sweeps.records.paths import find_run
from sweeps.records.redact import HIDDEN
from sweeps.records.run import read_run
from sweeps.records.run_lock import lock_run
from sweeps.tracking.follow_log import Trackers
from sweeps.tracking.run_values import TrackedSweep
from sweeps.tracking.trackers import check_trackers, describe_places, make_trackers
from sweeps.tracking.wandb_mode import Mode, check_settings, resolve_mode
from sweeps.tracking.wandb_tracker import WandbTracker
from trainables.errors import SweepAborted

PROG = "python -m sweeps.sync"


@dataclass(frozen=True, kw_only=True)
class SyncArgs:
    """Writes from the event log what W&B and other trackers lack of a sweep, or have torn."""

    run: tyro.conf.Positional[Path]
    """Folder of the sweep, e.g. runs/samsum."""
    track: str | None = None
    """Some of wandb, mlflow, trackio, tensorboard and optuna (the study), with commas between them;
    None is those that the sweep was started with."""
    wandb: Literal["auto", "online", "offline"] = "auto"
    """online also sends runs that were written offline; auto is online where a login is found."""
    json: JsonFlag = False

    def __post_init__(self) -> None:
        if self.track is not None:
            split_trackers(self.track)


def main(argv: Sequence[str] | None = None) -> Result:
    """Replays the log of a sweep that no process is working on."""
    args = parse(SyncArgs, argv, PROG)
    paths = find_run(args.run)
    run = read_run(paths)
    config = sweep_json.parse_config(run)
    config = replace(config, track=args.track or config.track, wandb="auto")
    if not config.trackers:
        raise SweepAborted("the sweep has no trackers", "name some: --track wandb,mlflow")
    if args.wandb != "auto" and "wandb" not in config.trackers:
        raise SweepAborted(
            f"--wandb {args.wandb} does nothing for {', '.join(config.trackers)}",
            "leave it out, or add wandb to --track",
        )
    if "optuna" in config.trackers and HIDDEN in (config.study_storage or ""):
        raise SweepAborted(
            "the study storage needs its password, which sweep.json does not keep",
            "resume the sweep with --study-storage URL, which writes the study too",
        )
    check_trackers(config, paths)
    with lock_run(paths):
        mode: Mode = "disabled"
        if "wandb" in config.trackers:
            check_settings(config)
            mode = resolve_mode(args.wandb, is_tiny=False)
            if mode == "disabled":
                raise SweepAborted("WANDB_MODE is disabled", "unset it, or give --wandb")
        sweep = TrackedSweep(
            config=config,
            wandb_mode=mode,
            paths=paths,
            metric=run.metric,
            name=run.record["name"],
            sweep_id=run.record["sweep_id"],
        )
        shown = make_trackers(sweep)
        trackers = Trackers(paths, shown)
        trackers.finish()
    for tracker in shown:
        if isinstance(tracker, WandbTracker) and tracker.mode != mode:
            raise SweepAborted(f"W&B could not be written {mode}", "repeat the command later")
        if isinstance(tracker, WandbTracker) and tracker.has_refused_sweep:
            raise SweepAborted("W&B made no sweep of the runs", "repeat the command later")
    if trackers.failed:
        raise SweepAborted(
            f"{', '.join(trackers.failed)} could not be written", "repeat the command later"
        )
    print(f"replayed {paths.events} into {', '.join(config.trackers)}")
    places = describe_places(sweep)
    for name, place in places.items():
        print(f"{name}: {place}")
    return Result({"run": paths.folder, "trackers": places})


if __name__ == "__main__":
    run_command(main)
