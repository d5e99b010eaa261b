"""A process that packs are forked from has touched no GPU, and leaves a pack little to import."""

import os
import subprocess
import sys
from pathlib import Path

from trainables.imports import PACK_ENV, PACK_IMPORTS

PROJECT = Path(__file__).resolve().parents[3]


def told_by(code: str) -> list[str]:
    """The words that a process prints which has imported what is preloaded."""
    ended = subprocess.run(
        [sys.executable, "-c", f"import {PACK_IMPORTS}; import os, sys, torch; {code}"],
        cwd=PROJECT, env={**os.environ, **PACK_ENV}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return ended.stdout.split()


def test_process_can_be_forked() -> None:
    code = (
        "print(len(os.listdir('/proc/self/task')), torch.get_num_threads(), "
        "*(name for name in ('bitsandbytes', 'peft', 'ray') if name in sys.modules), flush=True); "
        "os.fork() or print(torch.cuda._is_in_bad_fork())"
    )
    assert told_by(code) == ["1", "1", "False"]


def test_pack_has_its_own_number_of_threads_and_loads_little_more() -> None:
    code = (
        "before = set(sys.modules); os.environ['OMP_NUM_THREADS'] = '3'; "
        "from trainables.packing.actor import load_host; load_host(); "
        "from trainables.packing.evaluation.scorer import load_metrics; load_metrics(); "
        "print(torch.get_num_threads(), *(set(sys.modules) - before))"
    )
    num_threads, *loaded = told_by(code)
    assert num_threads == "3" and "bitsandbytes" in loaded
    ours = ("trainables", "bitsandbytes", "peft", "ray")
    others = [name for name in loaded if name.partition(".")[0] not in ours]
    heavy = ("torch.", "transformers.generation", "nltk", "pandas", "scipy", "sklearn")
    assert not [name for name in others if name.startswith(heavy)]
