"""python -m tests.benchmarks.packing.spread: how far a pack lies from solo runs, and they apart.

One configuration is trained four times by TRL, two of them alike and two in smaller micro-batches,
and once in a pack beside other trials. Rounding alone tells them apart: nothing has dropout.
"""

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from tests.benchmarks.packing.process import run_in_own_process
from tests.benchmarks.packing.results import describe_args, read_commit
from tests.trainables.prepared import prepare_rows
from trainables.config import ComputeDtype, Hyperparameters, TrainingSettings
from trainables.process import see_one_gpu


@dataclass(frozen=True, kw_only=True)
class Args:
    """Compares the losses of every optimizer step of a pack's trial and of solo runs."""

    model: Path
    """Folder of a model with its tokenizer."""
    data: Path
    """Folder with train, validation and test files."""
    out: Path
    """JSON file for the figures."""
    num_steps: int = 50
    """Optimizer steps of every run."""
    batch_size: int = 8
    """Rows of a step."""
    learning_rate: float = 5e-4
    max_length_tokens: int = 1024
    """Tokens of the longest row."""
    compute_dtype: ComputeDtype = "bfloat16"


def main() -> None:
    args = tyro.cli(Args, prog="python -m tests.benchmarks.packing.spread")
    see_one_gpu()
    with tempfile.TemporaryDirectory() as folder:
        comparison = compare_losses(args, Path(folder))
    args.out.write_text(json.dumps(comparison, indent=2) + "\n", encoding="utf-8")
    del comparison["losses"]
    print(json.dumps(comparison, indent=2))


def compare_losses(args: Args, folder: Path) -> dict[str, Any]:
    """The file's content; distances are largest relative ones, of a step's loss from the first
    solo run's.

    Args:
        folder: gets the prepared rows.
    """
    settings = TrainingSettings(
        rows_dir=prepare_rows(folder, args.data),
        model=str(args.model),
        max_steps=args.num_steps,
        rungs=(args.num_steps,),
        batch_size=args.batch_size,
        micro_batch_size=args.batch_size,
        max_length_tokens=args.max_length_tokens,
        compute_dtype=args.compute_dtype,
        eval_rows=2,
        max_new_tokens=2,
    )
    params = Hyperparameters(
        lora_rank=16, lora_alpha=32, lora_dropout=0.0, learning_rate=args.learning_rate
    )
    losses = {
        f"solo, {name}": run_in_own_process(
            _train_solo, params, replace(settings, micro_batch_size=args.batch_size // parts)
        )
        for name, parts in (("first", 1), ("again", 1), ("half", 2), ("quarter", 4))
    }
    losses["pack of 4"] = run_in_own_process(_train_pack, params, settings)
    first = losses["solo, first"]
    distances = {
        name: max(abs(one - other) / other for one, other in zip(own, first, strict=True))
        for name, own in losses.items()
        if own is not first
    }
    return {
        "commit": read_commit(),
        "settings": describe_args(args),
        "distances": distances,
        "first_loss": first[0],
        "last_loss": first[-1],
        "losses": losses,
    }


def _train_solo(params: Hyperparameters, settings: TrainingSettings) -> list[float]:
    from tests.trainables.packing.small_packs import run_solo

    with tempfile.TemporaryDirectory() as folder:
        logs, _ = run_solo(params, settings, Path(folder))
    return [log["loss"] for log in logs]


def _train_pack(params: Hyperparameters, settings: TrainingSettings) -> list[float]:
    """Losses of a trial beside three of other ranks and learning rates, in the second slot."""
    import torch

    from tests.benchmarks.packing.job import read_training_examples
    from tests.benchmarks.packing.pack import make_pack
    from tests.trainables.packing.small_packs import losses, run_pack, trial_of
    from trainables.models.memory import get_gpu_gib
    from trainables.models.model_facts import read_model_facts
    from trainables.packing.sizing.choose import choose_capacity

    facts = read_model_facts(settings.model)
    capacity = choose_capacity(facts, settings, params.lora_rank, get_gpu_gib(), 4)
    pack = make_pack(settings, capacity, is_fast=torch.cuda.is_available())
    examples = read_training_examples(settings)
    for slot, (rank, factor) in enumerate(((4, 2.0), (16, 1.0), (8, 0.5), (16, 0.1))):
        alpha, rate = 2 * rank, factor * params.learning_rate
        varied = replace(params, lora_rank=rank, lora_alpha=alpha, learning_rate=rate)
        pack.join(slot, trial_of(f"t{slot}", varied, settings), examples)
    return losses(run_pack(pack)["t1"])


if __name__ == "__main__":
    main()
