"""One measurement of the bench: what is trained, and the row that it becomes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.packing.products import count_linear, count_products
from tests.benchmarks.packing.results import Row
from trainables.config import Hyperparameters, TrainingSettings, TrialConfig
from trainables.data.batches import Batches
from trainables.data.prepared_rows import read_rows
from trainables.data.tokens import Example, encode_training_rows
from trainables.models.base_model import load_tokenizer
from trainables.models.memory import measure_peak_gib
from trainables.models.model_facts import read_model_facts


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to measure."""

    settings: TrainingSettings
    """Three rungs: the first step, the end of the warm-up, and the end."""
    lora_ranks: tuple[int, ...]
    """Ranks of the trials, in turn."""
    ranks: str
    """Their name in the table."""
    lora_dropout: float
    num_trials: int
    least_s: float
    """A pack's rounds are repeated until they have taken so long."""
    started_s: float
    """time.perf_counter() when the process was asked for; all processes share that clock."""

    @property
    def num_warm_up_steps(self) -> int:
        """Steps before the clock starts."""
        return self.settings.rungs[1]

    @property
    def num_steps(self) -> int:
        """Steps that are timed."""
        return self.settings.max_steps - self.num_warm_up_steps

    def make_trial(self, number: int, folder: Path = Path()) -> TrialConfig:
        rank = self.lora_ranks[number % len(self.lora_ranks)]
        params = Hyperparameters(
            lora_rank=rank, lora_alpha=2 * rank, lora_dropout=self.lora_dropout, learning_rate=1e-4
        )
        name = f"t{number:04d}"
        return TrialConfig(trial_id=name, params=params, settings=self.settings, folder=folder)

    def make_row(self, batches: Batches, *, steps: int, seconds: float, **others: Any) -> Row:
        """The measurement's row.

        Args:
            batches: of every trial.
            steps: that were timed, over all trials; each trial's are a multiple of num_steps.
            seconds: that they took.
        """
        facts = read_model_facts(self.settings.model)
        timed = range(self.num_warm_up_steps + 1, self.settings.max_steps + 1)
        rows = [row for step in timed for row in batches.get_step_rows(step)]
        num_tokens = sum(len(row.input_ids) for row in rows)
        trials = [self.make_trial(number) for number in range(self.num_trials)]
        products = sum(count_products(facts, trial.params, rows) for trial in trials) / len(trials)
        times_per_s = steps / self.num_steps / seconds
        known = {
            "num_trials": self.num_trials,
            "real_frac": None,
            "predicted_gib": None,
            "first_round_steps_per_s": None,
            "peak_gib": measure_peak_gib(),
            "reserved_gib": _measure_reserved_gib(),
        }
        return Row(
            batch_size=self.settings.batch_size,
            ranks=self.ranks,
            trial_steps_per_s=steps / seconds,
            real_tokens_per_s=num_tokens * times_per_s,
            tflops=count_linear(facts, num_tokens) * times_per_s / 1e12,
            products_tflops=products * times_per_s / 1e12,
            timed_s=seconds,
            **{**known, **others},
        )


def read_training_examples(settings: TrainingSettings) -> list[Example]:
    train = read_rows(settings.rows_dir).train
    limits = settings.max_length_tokens, settings.max_new_tokens
    return encode_training_rows(load_tokenizer(settings.model), train, *limits)


def synchronize() -> None:
    """Wait for all that the GPU has to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _measure_reserved_gib() -> float:
    return (
        torch.cuda.max_memory_reserved() / 2**30
        if torch.cuda.is_available()
        else measure_peak_gib()
    )
