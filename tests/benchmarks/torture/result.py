"""What a torture came to: a line of JSON, and a row of a table."""

import json
import os
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sweeps.checks.environment import list_versions, read_git_commit
from tests.benchmarks.torture.args import TortureArgs
from tests.benchmarks.torture.tortured_sweep import Hit
from trainables.files import read_json_lines

TABLE_HEAD = (
    "| seed | nodes | faults | of kinds | drivers | trials | runs of finals "
    "| curves, reports compared | largest difference of a loss | seconds | verdict |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True, kw_only=True)
class Result:
    """One tortured sweep."""

    seed: int
    hits: Sequence[Hit]
    """In order."""
    num_drivers: int
    """The first and all that resumed."""
    num_trials: int
    """Trials of the search."""
    num_final_runs: int
    num_curves: int
    """Trials and runs that were trained again."""
    num_reports: int
    """Reports of those, each compared."""
    largest_loss_difference: float
    """Relative, of a report's training or evaluation loss to that of the second training."""
    judged_by_spread: list[str]
    """Trials that differ from it by more than roundings mostly do."""
    seconds: float
    """Without the second training."""
    check_seconds: float
    """What the checks and the second training took."""
    faults: Sequence[str]
    left_out: Sequence[str] = ()
    """What was asked for, and this machine does not allow."""

    @property
    def verdict(self) -> str:
        return f"{len(self.faults)} faults" if self.faults else "nothing lost"

    @property
    def num_hits(self) -> Counter[str]:
        return Counter(hit.kind for hit in self.hits)

    def format_row(self, nodes: int) -> str:
        cells = [
            self.seed,
            nodes,
            len(self.hits),
            ", ".join(f"{number} {kind}" for kind, number in sorted(self.num_hits.items())),
            self.num_drivers,
            self.num_trials,
            self.num_final_runs,
            f"{self.num_curves}, {self.num_reports}",
            f"{self.largest_loss_difference:.1e}",
            f"{self.seconds:.0f} + {self.check_seconds:.0f}",
            self.verdict,
        ]
        return "| " + " | ".join(map(str, cells)) + " |"


def append_result(path: Path, args: TortureArgs, result: Result) -> None:
    """Adds a line of JSON; several processes may do so at once."""
    line = {
        "git_commit": read_git_commit(),
        "python": platform.python_version(),
        "versions": list_versions(),
        "num_cores": len(os.sched_getaffinity(0)),
        **_describe_args(args),
        **asdict(result),
        "verdict": result.verdict,
    }
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def list_done(path: Path, args: TortureArgs) -> set[int]:
    """Seeds of which the results have a run that was asked for in these words."""
    lines = read_json_lines(path) if path.exists() else []
    asked = _describe_args(args)
    return {line["seed"] for line in lines if asked.items() <= line.items()}


def _describe_args(args: TortureArgs) -> dict[str, Any]:
    return {
        "kills_asked": args.kills,
        "num_trials_asked": args.num_trials,
        "max_steps": args.max_steps,
        "finals": args.finals,
        "fill_disk": args.fill_disk,
        "nodes": args.nodes,
        "cut_s": args.cut_s,
    }
