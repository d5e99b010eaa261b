"""What trackers cost: the same sweep without any and with all, in turn, several times.

python -m tests.benchmarks.trackers --recipe-flags "samsum --tiny --seed 1" --out FILE
"""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

import numpy as np

from sweeps.cli import parse, run_command
from sweeps.config import TRACKERS
from sweeps.records.events import read_events
from tests.describe_run import describe_run
from tests.timed_sweep import run_timed
from trainables.config import require
from trainables.files import write_atomic

PROG = "python -m tests.benchmarks.trackers"
NUM_RESAMPLES = 10_000


@dataclass(frozen=True, kw_only=True)
class TrackersArgs:
    """Runs a sweep without trackers and with them, in turn, and compares how long both take.

    W&B writes offline; MLflow, Trackio and TensorBoard write to the run folder, unless the
    environment names a server or another folder.
    """

    recipe_flags: str = "samsum --tiny"
    """What python -m sweeps.run is given, in quotes."""
    num_pairs: int = 5
    """Sweeps of each kind. Every second pair begins with the trackers."""
    track: str = ",".join(TRACKERS)
    """The trackers that are compared with none."""
    out: Path | None = None
    """A JSON file for all numbers; None only prints them."""

    def __post_init__(self) -> None:
        require(self.num_pairs >= 1, "num_pairs", self.num_pairs, "at least 1")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one sweep took, in seconds."""

    trials_s: float
    """From the first trial's start to the last one's end, with the finals."""
    reports_s: float
    """From the first report on: without what packs take to load, which differs from run to run."""
    command_s: float
    """The whole command."""
    driver_cpu_s: float
    """CPU of the driver's process alone."""
    children_cpu_s: float
    """CPU of the processes that it has started and waited for."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs all sweeps; prints a line of JSON for each, then what they say together."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = parse(TrackersArgs, words, PROG)
    sides: dict[str, list[Measured]] = {"none": [], args.track: []}
    for pair in range(args.num_pairs):
        for track in list(sides)[:: -1 if pair % 2 else 1]:
            sides[track].append(measure_sweep(args.recipe_flags, track))
            print(json.dumps({"track": track, **asdict(sides[track][-1])}), flush=True)
    values = {track: [asdict(sweep) for sweep in side] for track, side in sides.items()}
    comparison = {
        "medians": {
            track: {name: median(one[name] for one in side) for name in side[0]}
            for track, side in values.items()
        },
        "ratios": {
            name: compare_medians(*([one[name] for one in side] for side in values.values()))
            for name in ("trials_s", "reports_s", "command_s")
        },
    }
    print(json.dumps(comparison, indent=1))
    if args.out is not None:
        facts = describe_run(PROG, words) | {"sweeps": values} | comparison
        write_atomic(args.out, json.dumps(facts, indent=1) + "\n")


def measure_sweep(recipe_flags: str, track: str) -> Measured:
    mode = "offline" if "wandb" in track else "disabled"
    flags = [*shlex.split(recipe_flags), "--track", track, "--wandb", mode]
    with run_timed(flags) as sweep:
        events = read_events(sweep.paths.events)
    firsts = {e["kind"]: datetime.fromisoformat(e["time"]) for e in reversed(events)}
    ended = next(e["time"] for e in reversed(events) if e["kind"] == "trial_ended")
    since = {kind: datetime.fromisoformat(ended) - time for kind, time in firsts.items()}
    return Measured(
        trials_s=since["trial_started"].total_seconds(),
        reports_s=since["report"].total_seconds(),
        command_s=sweep.command_s,
        driver_cpu_s=sweep.driver_cpu_s,
        children_cpu_s=sweep.children_cpu_s,
    )


def compare_medians(without: Sequence[float], with_trackers: Sequence[float]) -> dict[str, object]:
    """How many times as long the median with trackers is, with the 95% interval of a bootstrap
    over pairs."""
    pairs_P2 = np.array([with_trackers, without]).T
    draws_RP = np.random.default_rng(0).integers(len(pairs_P2), size=(NUM_RESAMPLES, len(pairs_P2)))
    medians_R2 = np.median(pairs_P2[draws_RP], axis=1)
    interval = np.quantile(medians_R2[:, 0] / medians_R2[:, 1], (0.025, 0.975)).tolist()
    ratio = median(with_trackers) / median(without)
    return {"ratio": round(ratio, 4), "interval": [round(bound, 4) for bound in interval]}


if __name__ == "__main__":
    run_command(main)
