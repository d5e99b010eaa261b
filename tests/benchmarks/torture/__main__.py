"""python -m tests.benchmarks.torture: kills a sweep at random, then checks what it left."""

import os
import sys
from collections.abc import Sequence

from sweeps.cli import EXIT_DONE, parse, run_command
from tests.benchmarks.torture import disk, namespaces, side_by_side
from tests.benchmarks.torture.args import TortureArgs
from tests.benchmarks.torture.one_sweep import torture_sweep
from tests.benchmarks.torture.result import TABLE_HEAD, append_result

PROG = "python -m tests.benchmarks.torture"
EXIT_FAULTY = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Tortures one sweep, or several at once; returns the process's exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = parse(TortureArgs, words, PROG)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the bundled model is for CPUs, of which all have some
    if args.num_runs > 1:
        return EXIT_FAULTY if any(side_by_side.run_all(args)) else EXIT_DONE
    if namespaces.POSSIBLE not in os.environ:
        return namespaces.run_in_own(args, words)
    possible, left_out = namespaces.leave_out_impossible(args)
    with disk.open_runs_dir(possible) as runs_dir:
        result = torture_sweep(possible, runs_dir, left_out)
    for fault in result.faults:
        print(f"seed {args.seed}: fault: {fault}")
    print(f"{TABLE_HEAD}\n{result.format_row(args.nodes)}", flush=True)
    if args.results is not None:
        append_result(args.results, args, result)
    return EXIT_FAULTY if result.faults else EXIT_DONE


if __name__ == "__main__":
    run_command(main)
