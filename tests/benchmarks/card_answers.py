"""How many scored answers the model card's script gives, to the letter: three tasks on one model
whose ends and generation config are changed, in float32 and bfloat16.

python -m tests.benchmarks.card_answers MODEL_DIR --output FILE trains a short adapter for each task
and scores it in a pack. In bfloat16 plain transformers is compared with itself at another batch
size too: where two tokens are nearly as likely, rounding decides.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from sweeps.checks.environment import describe_hardware, list_versions, read_git_commit
from tests.sweeps import scored_runs
from tests.sweeps.card_programs import run_cards
from trainables.config import ComputeDtype
from trainables.data.prepared_rows import read_rows
from trainables.files import write_atomic
from trainables.process import see_one_gpu

BATCH_SIZE = 8


def main(model: Path, output: Path, steps: int, rows: int) -> None:
    """Writes the result file, and prints a line for each card."""
    see_one_gpu()
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = scored_runs.copy_base(folder / "base", None, model)
        chats = scored_runs.write_chats(folder / "chats.jsonl", 420)
        for task in scored_runs.SMALL:
            data = {"data": str(chats)} if task == "table" else {}
            num_steps = steps // 2 if task == "turkish_tweets" else steps
            adapter = scored_runs.train_adapter(
                task, plain, folder / f"{task}-adapter", num_steps, **data
            )
            cases = [(c, t) for t in get_args(ComputeDtype) for c in (None, *scored_runs.CHANGES)]
            runs = []
            for change, dtype in cases:
                place = folder / f"{task}-{_name_change(change)}-{dtype}"
                base = scored_runs.copy_base(place / "base", change, model)
                options = {"compute_dtype": dtype, **data}
                runs.append(scored_runs.score(task, base, adapter, place, rows, **options))
            answers = run_cards(runs, folder, BATCH_SIZE)
            for (change, dtype), run, card in zip(cases, runs, answers, strict=True):
                num_rows = len(card.scored)
                result = {
                    "kind": read_rows(run / "rows").scoring.kind,
                    "base": _name_change(change),
                    "compute_dtype": dtype,
                    "rows": num_rows,
                    "different_answers": len(set(card.scored)),
                    "equal_frac": card.num_equal / num_rows,
                    f"batch_{BATCH_SIZE}_equal_frac": card.num_equal_batched / num_rows,
                }
                results.append(result)
                print(json.dumps(result), flush=True)
    record = {
        "command": f"python -m tests.benchmarks.card_answers {model.name} --output {output.name} "
        f"--steps {steps} --rows {rows}",
        "model": model.name,
        "hardware": describe_hardware(),
        "versions": list_versions(),
        "git_commit": read_git_commit(),
        "results": results,
    }
    write_atomic(output, json.dumps(record, indent=1) + "\n")


def _name_change(change: Callable[[Path], None] | None) -> str:
    return "plain" if change is None else change.__name__


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.card_answers", description=__doc__
    )
    parser.add_argument("model", type=Path, help="folder of a Qwen model")
    parser.add_argument("--output", type=Path, required=True, help="result file, JSON")
    parser.add_argument("--steps", type=int, default=12, help="of each training; labels have half")
    parser.add_argument("--rows", type=int, default=40, help="of test")
    main(**vars(parser.parse_args()))
