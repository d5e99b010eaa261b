"""Makes every mistake that we know of, and checks that it is answered by error: and fix:.

python -m tests.benchmarks.mistakes --out tests/benchmarks/cpu-mistakes.json

Each is a process of its own, as a user starts it, in a folder of its own. It holds if its exit code
is 2, its last two lines are error: and fix:, the error names what is wrong, no traceback is shown,
no file was written or changed, and it took less than 15 s.
"""

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sweeps.cli import parse, run_command
from tests.benchmarks.mistakes import (
    command_lines,
    damaged_runs,
    data_files,
    machine,
    model_folders,
    recipe_files,
    storages,
)
from tests.benchmarks.mistakes.mistake import SLOW_S, Answer, Mistake, run_mistake
from tests.describe_run import describe_run
from trainables.config import require
from trainables.errors import SweepAborted
from trainables.files import write_atomic

PROG = "python -m tests.benchmarks.mistakes"
LISTS = (
    command_lines.MISTAKES,
    recipe_files.MISTAKES,
    data_files.MISTAKES,
    model_folders.MISTAKES,
    storages.MISTAKES,
    damaged_runs.MISTAKES,
    machine.MISTAKES,
)


@dataclass(frozen=True, kw_only=True)
class MistakesArgs:
    """Makes all mistakes; the exit code is 1 if one is not answered as promised."""

    only: str | None = None
    """Make those whose kind, title or command has these words in it."""
    at_once: int = 2
    """Processes at a time."""
    run: Path | None = None
    """Folder with data/ and runs/base, as damaged_runs.make_run fills it; None makes one."""
    out: Path | None = None
    """A JSON file for all answers; None only prints them."""

    def __post_init__(self) -> None:
        require(self.at_once >= 1, "at_once", self.at_once, "at least 1")


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the mistakes, and prints the answers that are not as promised."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = parse(MistakesArgs, words, PROG)
    mistakes = choose_mistakes(args.only)
    can_mount = os.geteuid() == 0 and shutil.which("unshare") is not None
    left_out = [m for m in mistakes if m.mounts and not can_mount]
    mistakes = [m for m in mistakes if m not in left_out]
    is_damaged = any(mistake.kind == "run" for mistake in mistakes)
    holding = damaged_runs.hold_run(args.run) if is_damaged else contextlib.nullcontext()
    with holding, ThreadPoolExecutor(args.at_once) as threads:
        answers = list(threads.map(_run_and_print, mistakes))
    summary = summarise(answers)
    facts = describe_run(PROG, words) | {
        "summary": summary,
        "left_out": [f"{m.kind}: {m.title}: only root can mount" for m in left_out],
        "mistakes": [answer.to_json() for answer in answers],
    }
    print(json.dumps(summary, indent=1))
    if args.out is not None:
        write_atomic(args.out, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    return int(any(answer.faults for answer in answers))


def choose_mistakes(only: str | None) -> list[Mistake]:
    """The mistakes in whose kind, title or command the words stand.

    Raises:
        SweepAborted: there is none.
    """
    all_mistakes = [mistake for mistakes in LISTS for mistake in mistakes]
    chosen = [m for m in all_mistakes if (only or "") in f"{m.kind}: {m.title}: {m.command}"]
    if not chosen:
        raise SweepAborted(f"there is no mistake with {only!r}", "leave out --only to make all")
    return chosen


def summarise(answers: Sequence[Answer]) -> dict[str, dict[str, object]]:
    """Counts and times by kind, and of all."""
    kinds = dict.fromkeys(answer.mistake.kind for answer in answers)
    groups = {kind: [a for a in answers if a.mistake.kind == kind] for kind in kinds}
    return {
        kind: {
            "mistakes": len(group),
            "as_promised": sum(not answer.faults for answer in group),
            "tracebacks": sum("a traceback" in answer.faults for answer in group),
            f"over_{SLOW_S:.0f}_s": sum(answer.seconds >= SLOW_S for answer in group),
            "slowest_s": round(max(answer.seconds for answer in group), 1),
            "cpu_s": round(sum(answer.cpu_s for answer in group), 1),
        }
        for kind, group in (groups | {"all": list(answers)}).items()
    }


def _run_and_print(mistake: Mistake) -> Answer:
    answer = run_mistake(mistake)
    if answer.faults:
        text = f"NOT as promised, {'; '.join(answer.faults)}\n" + answer.stderr[-2000:]
    else:
        text = "\n".join(answer.last_lines)
    head = f"{mistake.kind}: {mistake.title} ({answer.seconds:.1f} s)"
    print(f"{head}\n  {mistake.command}\n{text}\n", flush=True)
    return answer


if __name__ == "__main__":
    run_command(main)
