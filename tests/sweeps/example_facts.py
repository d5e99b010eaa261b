"""CardFacts of an invented sweep, for the tests of the card and of the export."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeps.finals.outcome import Outcome, Winner
from sweeps.publish.card_facts import CardFacts
from tests.sweeps.invented_sweep import make_history
from trainables.config import Hyperparameters, Metric, TrainingSettings
from trainables.data.rows import Scoring

SETTINGS = TrainingSettings(
    rows_dir=Path("/run/rows"),
    model="Qwen/Qwen3-0.6B",
    max_steps=90,
    rungs=(10, 30, 90),
    max_new_tokens=8,
    compute_dtype="float32",
)
METRIC = Metric(name="rougeLsum")
PARAMS = Hyperparameters(lora_rank=4, lora_alpha=8.0, learning_rate=0.00031622776)
TRIALS = [
    *(make_history(n, "completed", (90, 40.5 - n), params=PARAMS) for n in range(1, 13)),
    make_history(13, "stopped", (30, 50.0)),
    make_history(14, "failed", reason="out of memory"),
]
SCORES = {
    "validation": {"rouge1": 48.125, "rougeLsum": 40.5, "eval_loss": 1.25},
    "test": {"rouge1": 47.0, "rougeLsum": 39.75},
    "validation_base": {"rouge1": 30.25, "rougeLsum": 25.5, "eval_loss": 2.5},
    "test_base": {"rouge1": 30.0, "rougeLsum": 24.125},
}
OUTCOME = Outcome(winner=Winner(run=TRIALS[0], tested={}), scores=SCORES)
FACTS = CardFacts(
    sweep_name="samsum-s0",
    task="samsum",
    base_model="Qwen/Qwen3-0.6B",
    dataset="knkarthick/samsum@refs/convert/parquet",
    dataset_rows={"train": 14731, "validation": 818, "test": 819},
    dropped_rows={"empty dialogue": 1},
    prompt_template="Summarise this conversation:\n\n{dialogue}",
    source="dialogue",
    scoring=Scoring(),
    settings=SETTINGS,
    metric=METRIC,
    outcome=OUTCOME,
    trials=TRIALS,
    versions={"torch": "2.13.0", "peft": "0.21.0"},
    command="python -m sweeps.run samsum --num-trials 40 --seed 0",
    row_digests={"train": "a1" * 32, "validation": "b2" * 32, "test": "c3" * 32},
)


def facts(**changes: Any) -> CardFacts:
    """FACTS with some fields changed."""
    return replace(FACTS, **changes)
