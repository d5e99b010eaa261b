"""python -m sweeps.report RUN...: report.html of a run is made again, or several are compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sweeps.cli import JsonFlag, Result, parse, run_command
from sweeps.publish.load_run import load_run
from sweeps.records.paths import abort_if_unwritable
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
    """Writes the page."""
    args = parse(ReportArgs, argv, PROG)
    if not args.runs:
        raise SweepAborted("no run is named", f"{PROG} runs/NAME [runs/OTHER ...]")
    resolved = [folder.expanduser().resolve() for folder in args.runs]
    if again := [folder for folder in resolved if resolved.count(folder) > 1]:
        raise SweepAborted(f"{again[0]} is named twice", "name each run once")
    sweeps = [load_run(folder) for folder in args.runs]
    import optuna  # this and the next take a second

    from sweeps.publish.report.page import render

    optuna.logging.set_verbosity(optuna.logging.WARNING)

    default = sweeps[0].paths.report if len(sweeps) == 1 else Path("comparison.html")
    output = args.output or default
    with abort_if_unwritable(output):
        write_atomic(output, render(sweeps))
    print(f"wrote {output}")
    return Result({"runs": [run.paths.folder for run in sweeps], "page": output.absolute()})


if __name__ == "__main__":
    run_command(main)
