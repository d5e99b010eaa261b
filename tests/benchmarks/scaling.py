"""How sweeps scale with the GPUs of one host: the same search on 1, 2, 4 and 8 of them.

python -m tests.benchmarks.scaling --trials-per-gpu 64 --recipe-flags "samsum --no-finals"
python -m tests.benchmarks.scaling --num-trials 256 --recipe-flags "samsum"
"""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from sweeps.cli import parse, run_command
from sweeps.records.events import read_events
from tests.describe_run import describe_run
from tests.timed_sweep import TimedSweep, run_timed
from trainables.files import write_atomic
from trainables.packing.service.ledger import read_ledgers

PROG = "python -m tests.benchmarks.scaling"


@dataclass(frozen=True, kw_only=True)
class ScalingArgs:
    """Runs a sweep on each number of GPUs, and compares how long their trials take."""

    recipe_flags: str = "samsum"
    """What python -m sweeps.run is given, in quotes."""
    gpus: tuple[int, ...] = (1, 2)
    """Numbers of GPUs; the first is what the others are compared with."""
    trials_per_gpu: int | None = None
    """Weak scaling: each GPU has so many trials, so that the ideal takes as long on any number."""
    num_trials: int | None = None
    """Strong scaling: so many trials in all."""
    out: Path | None = None
    """A JSON file for all numbers, written after each sweep; None only prints them."""

    def __post_init__(self) -> None:
        if (self.trials_per_gpu is None) == (self.num_trials is None):
            raise ValueError("either --trials-per-gpu or --num-trials is needed")
        if not self.gpus or min(self.gpus) < 1:
            raise ValueError("--gpus needs numbers of 1 and more")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One sweep. Times are seconds."""

    num_gpus: int
    num_trials: int
    command_s: float
    """The whole command."""
    first_trial_s: float
    """From the first event to the first trial's start."""
    last_report_s: float
    """From the first event to the last report, finals included."""
    trials_s: float
    """Between these two."""
    trial_steps: int
    """Optimizer steps of all trials: how many ASHA leaves differs between sweeps."""
    packs: tuple[dict[str, float], ...]
    """Seconds of each pack by activity; see its ledger."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs all sweeps; prints a line of JSON for each, then how they compare."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = parse(ScalingArgs, words, PROG)
    measured: list[Measured] = []
    for num_gpus in args.gpus:
        num_trials = args.num_trials or num_gpus * (args.trials_per_gpu or 0)
        flags = [*shlex.split(args.recipe_flags), "--gpus", str(num_gpus)]
        with run_timed([*flags, "--num-trials", str(num_trials)]) as sweep:
            measured.append(measure_sweep(sweep, num_gpus, num_trials))
        print(json.dumps(asdict(measured[-1])), flush=True)
        if args.out is not None:
            facts = describe_run(PROG, words) | {"sweeps": list(map(asdict, measured))}
            facts["compared"] = compare_sweeps(measured)
            write_atomic(args.out, json.dumps(facts, indent=1) + "\n")
    print(json.dumps(compare_sweeps(measured), indent=1))


def measure_sweep(sweep: TimedSweep, num_gpus: int, num_trials: int) -> Measured:
    """What a sweep's log and its packs' ledgers tell."""
    events = read_events(sweep.paths.events)
    began, *times = (datetime.fromisoformat(event["time"]).timestamp() for event in events)
    kinds = [event["kind"] for event in events][1:]
    first_s = times[kinds.index("trial_started")] - began
    last_s = times[len(kinds) - 1 - kinds[::-1].index("report")] - began
    ledgers = read_ledgers(sweep.paths.checkpoints)
    return Measured(
        num_gpus=num_gpus,
        num_trials=num_trials,
        command_s=sweep.command_s,
        first_trial_s=round(first_s, 3),
        last_report_s=round(last_s, 3),
        trials_s=round(last_s - first_s, 3),
        trial_steps=sum(ledger.trial_steps for ledger in ledgers),
        packs=tuple(ledger.seconds for ledger in ledgers),
    )


def compare_sweeps(sweeps: Sequence[Measured]) -> list[dict[str, float]]:
    """Relates each sweep to the first: the share of the speed that as many GPUs would have if each
    were as fast as the first sweep's, in trials and in optimizer steps."""
    rates = [
        {
            "trials_efficiency": one.num_trials / one.trials_s / one.num_gpus,
            "steps_efficiency": one.trial_steps / one.trials_s / one.num_gpus,
            "command_efficiency": one.num_trials / one.command_s / one.num_gpus,
        }
        for one in sweeps
    ]
    return [
        {"num_gpus": one.num_gpus} | {n: round(rate / rates[0][n], 4) for n, rate in of_one.items()}
        for one, of_one in zip(sweeps, rates, strict=True)
    ]


if __name__ == "__main__":
    run_command(main)
