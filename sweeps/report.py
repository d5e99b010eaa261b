"""python -m sweeps.report RUN...: report.html of a run is made again, or several are compared."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sweeps.cli import JsonFlag, Result, parse, run_command
from sweeps.publish.report.facts import read_facts
from sweeps.records.paths import RunPaths, abort_if_unwritable
from sweeps.records.run_lock import find_lock_owner
from trainables.errors import SweepAborted
from trainables.files import write_atomic

PROG = "python -m sweeps.report"


@dataclass(frozen=True, kw_only=True)
class ReportArgs:
    """Writes a run's report.html again from its folder; of several runs one page compares them.

    The page is one file that opens without a network.
    """

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN...")]
    """Folders of sweeps, e.g. runs/samsum."""
    output: Path | None = None
    """File for the page; None is report.html in the folder of a single run, and comparison.html
    here for several."""
    json: JsonFlag = False


def main(argv: Sequence[str] | None = None) -> Result:
    """Writes the page.

    Raises:
        SweepAborted: a run cannot be read, or the page cannot be written.
    """
    args = parse(ReportArgs, sys.argv[1:] if argv is None else argv, PROG)
    if not args.runs:
        raise SweepAborted("no run is named", f"{PROG} runs/NAME [runs/OTHER ...]")
    facts = [read_facts(run, is_running=_is_running(run)) for run in args.runs]
    import optuna  # this and the next take a second

    from sweeps.publish.report.page import render

    optuna.logging.set_verbosity(optuna.logging.WARNING)

    output = args.output or (facts[0].paths.report if len(facts) == 1 else Path("comparison.html"))
    with abort_if_unwritable(output):
        write_atomic(output, render(facts))
    print(f"wrote {output}")
    return Result({"runs": [run.paths.folder for run in facts], "page": output.absolute()})


def _is_running(run: Path) -> bool:
    owner = find_lock_owner(RunPaths(run.absolute()))
    return owner.is_alive is True and owner.work == "sweep"


if __name__ == "__main__":
    run_command(main)
