"""python -m tests.benchmarks.packing: packs beside TRL's SFTTrainer, on real row lengths.

Each call measures the rows that it is asked for and adds them to its file, e.g.
--model-config Qwen3.5-0.8B --rows solo pack --slots 1 8 --batch-sizes 2 --ranks 16 --out FILE.
A file has one set of settings: large batches, which take fewer --num-steps, have another file.
"""

import sys

import tyro

from tests.benchmarks.packing.rows import BenchArgs, measure_rows
from trainables.errors import SweepAborted
from trainables.process import see_one_gpu


def main() -> None:
    """Measures every row in a process of its own, and writes the file after each."""
    args = tyro.cli(BenchArgs, prog="python -m tests.benchmarks.packing")
    see_one_gpu()
    try:
        results = measure_rows(args)
    except SweepAborted as refused:
        print(refused, file=sys.stderr)
        sys.exit(2)
    for name, reason in results.failures.items():
        print(f"{name} failed: {reason}", file=sys.stderr)
    sys.exit(1 if results.failures else 0)


if __name__ == "__main__":
    main()
