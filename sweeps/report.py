"""python -m sweeps.report RUN...: report.html of a run is made again, or several are compared."""

import os
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
PAGE_MARK = b": sweep report</title>"
"""What report.html.j2 has in its head, and no other file."""
HEAD_BYTES = 4096
"""Within which it stands."""


@dataclass(frozen=True, kw_only=True)
class ReportArgs:
    """Writes a run's report.html again from its folder; of several runs one page compares them.

    The page is one file that opens without a network.
    """

    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        tyro.conf.arg(metavar="RUN...", help_behavior_hint="(required)"),
    ]
    """Folders of sweeps, e.g. runs/samsum."""
    output: Path | None = None
    """File for the page, where nothing but an earlier page may be; None is report.html in the
    folder of a single run, and comparison.html here for several."""
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
    output = args.output.expanduser() if args.output else default
    with abort_if_unwritable(output):
        _check_output(output)
        write_atomic(output, render(sweeps))
    print(f"wrote {output}")
    return Result({"runs": [run.paths.folder for run in sweeps], "page": output.absolute()})


def _check_output(output: Path) -> None:
    """Refuses to overwrite what is no page of this command; the page's title tells."""
    if not os.path.lexists(output):
        return
    head = b""
    if output.is_file():
        with output.open("rb") as file:
            head = file.read(HEAD_BYTES)
    if not (head.startswith(b"<!doctype html>") and PAGE_MARK in head):
        raise SweepAborted(
            f"--output {output} exists, and is no page of a report", "name another file"
        )


if __name__ == "__main__":
    run_command(main)
