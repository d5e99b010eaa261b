"""python -m tests.benchmarks.search_quality table|replay: how good the search is, measured."""

import argparse
import sys
from collections.abc import Sequence

from sweeps.cli import run_command

PROG = "python -m tests.benchmarks.search_quality"
COMMANDS = {
    "table": "train every configuration of a grid to the end, and measure it at its rungs",
    "replay": "search such a table many times by each method, without a GPU",
}


def main(argv: Sequence[str]) -> int:
    """Hands the flags to one of the two commands; returns its exit code."""
    parser = argparse.ArgumentParser(PROG, description=(__doc__ or "").partition(": ")[2])
    commands = parser.add_subparsers(dest="command", required=True, metavar="table|replay")
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=f"{text}; `{PROG} {name} --help` lists its flags")
    command = parser.parse_args(argv[:1]).command
    if command == "table":
        from tests.benchmarks.search_quality import table  # replay does without the pack

        return table.main(argv[1:])
    from tests.benchmarks.search_quality import replay  # table does without its methods

    return replay.main(argv[1:])


if __name__ == "__main__":
    run_command(lambda: main(sys.argv[1:]))
