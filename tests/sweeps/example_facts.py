"""CardFacts of an invented sweep, for the tests of the card and of the export."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeps.publish.model_card import CardFacts
from trainables.config import Hyperparameters, Metric, TrainingSettings

SETTINGS = TrainingSettings(
    rows_dir=Path("/run/rows"),
    model="Qwen/Qwen3-0.6B",
    max_steps=90,
    rungs=(10, 30, 90),
    max_new_tokens=8,
    compute_dtype="float32",
)
FACTS = CardFacts(
    base_model="Qwen/Qwen3-0.6B",
    dataset="knkarthick/samsum@refs/convert/parquet",
    dataset_rows={"train": 14731, "validation": 818, "test": 819},
    dropped_rows={"empty dialogue": 1},
    prompt_template="Summarise this conversation:\n\n{dialogue}",
    task="samsum",
    params=Hyperparameters(lora_rank=4, lora_alpha=8.0, learning_rate=0.00031622776),
    settings=SETTINGS,
    metric=Metric(name="rougeLsum"),
    scores={
        "validation": {"rouge1": 48.125, "rougeLsum": 40.5, "eval_loss": 1.25},
        "test": {"rouge1": 47.0, "rougeLsum": 39.75},
        "validation_base": {"rouge1": 30.25, "rougeLsum": 25.5, "eval_loss": 2.5},
        "test_base": {"rouge1": 30.0, "rougeLsum": 24.125},
    },
    sweep_name="samsum-s0",
    trial_id="t0003",
    num_trials_by_status={"completed": 9, "stopped": 30, "failed": 1},
    top_trials=[
        {"trial_id": f"t{n:04}", "learning_rate": 1e-4 * n, "rougeLsum": 40.5 - n}
        for n in range(1, 14)
    ],
    versions={"torch": "2.13.0", "peft": "0.21.0"},
    command="python -m sweeps.run samsum --num-trials 40 --seed 0",
)


def facts(**changes: Any) -> CardFacts:
    """FACTS with some fields changed."""
    return replace(FACTS, **changes)
