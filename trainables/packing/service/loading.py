"""What a pack's process reads before it trains: the rows and the base. Loads torch."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from trainables.config import TrainingSettings
from trainables.data.prepared_rows import fetch_rows, read_rows
from trainables.data.rows import Row, Splits, select_rung_rows
from trainables.data.tokens import Example, encode_training_rows
from trainables.models.base_model import get_device, load_base, load_tokenizer
from trainables.models.memory import free_memory, reset_peak
from trainables.packing.compute.pack import Pack
from trainables.packing.evaluation.evaluator import PackEvaluator, load_metrics
from trainables.packing.sizing.capacity import Capacity


class LoadedPack(NamedTuple):
    """An empty pack over its base, and the rows of all its trials."""

    settings: TrainingSettings
    capacity: Capacity
    pack: Pack
    tokenizer: PreTrainedTokenizerBase
    splits: Splits
    examples: Sequence[Example]
    """The training rows."""

    def select_report_rows(self, step: int) -> list[Row]:
        """The validation rows that a report at this step scores."""
        return select_rung_rows(self.splits.validation, self.settings, step)

    def make_evaluator(
        self, rows: Sequence[Row], settings: TrainingSettings | None = None
    ) -> PackEvaluator:
        """What scores the pack's slots on these rows."""
        return PackEvaluator(
            self.tokenizer,
            rows,
            self.splits.scoring,
            settings or self.settings,
            max_tokens=self.capacity.eval_tokens,
            is_graphed=get_device().type == "cuda",
            state_positions=self.pack.model.state_positions,
        )


def load_pack(settings: TrainingSettings, capacity: Capacity) -> LoadedPack:
    """Read the rows and the base once, for all trials.

    Raises:
        SweepAborted: the rows cannot be read.
    """
    reset_peak()
    tokenizer = load_tokenizer(settings.model)  # transformers loads its parts in one thread
    with ThreadPoolExecutor(2) as pool:  # what these two import has no module in common
        loading = pool.submit(make_pack, settings, capacity)
        metrics = pool.submit(load_metrics)
        fetch_rows(settings)
        splits = read_rows(settings.rows_dir)
        examples = encode_training_rows(
            tokenizer,
            splits.train,
            settings.max_length_tokens,
            settings.max_new_tokens,
            thinking=settings.thinking,
        )
        pack = loading.result()
        metrics.result()
    return LoadedPack(settings, capacity, pack, tokenizer, splits, examples)


def make_pack(settings: TrainingSettings, capacity: Capacity) -> Pack:
    """An empty pack over a base that nothing else holds."""
    pack = Pack(
        load_base(settings.model, settings.compute_dtype, settings.base),
        num_slots=capacity.num_slots,
        max_rank=capacity.max_rank,
        max_tokens=capacity.max_tokens,
        is_dequantised=capacity.is_dequantised,
        is_checkpointed=capacity.is_checkpointed,
        is_fast=get_device().type == "cuda" and settings.compute_dtype == "bfloat16",
    )
    free_memory()  # the base's own weights, which stand in a cycle of references
    return pack


def get_device_name() -> str:
    """Name of the GPU, or "cpu"."""
    return torch.cuda.get_device_name() if get_device().type == "cuda" else "cpu"
