"""What a pack's process reads before it trains: the rows and the base. Loads torch."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from trainables.config import Hyperparameters, TrainingSettings
from trainables.data.eval_rows import fixed_slice, rung_rows
from trainables.data.prepared_rows import read_rows
from trainables.data.rows import Row, Scoring, Splits
from trainables.data.tokens import Example, encode_training_rows
from trainables.metrics.eval_result import EvalResult
from trainables.models.base_model import device, load_base, load_tokenizer
from trainables.models.memory import free_memory, reset_peak
from trainables.packing.compute.pack import Pack
from trainables.packing.evaluation.evaluator import PackEvaluator, load_metrics
from trainables.packing.service.ledger import LedgerKeeper
from trainables.packing.service.loop import PackLoop
from trainables.packing.service.registry import TrialRegistry
from trainables.packing.sizing.capacity import Capacity
from trainables.packing.sizing.probe import measure_throughput
from trainables.packing.sizing.throughput import Throughput


class LoadedPack(NamedTuple):
    """An empty pack over its base, and the rows of all its trials."""

    pack: Pack
    splits: Splits
    examples: Sequence[Example]
    """The training rows."""
    new_evaluator: Callable[..., PackEvaluator]
    """From rows, and settings if they are not the pack's."""
    settings: TrainingSettings
    capacity: Capacity

    def measure_throughput(
        self, probed: Sequence[Hyperparameters], ledger: LedgerKeeper
    ) -> Throughput | None:
        """How fast trials of such hyperparameters would train; None if there are none."""
        if not probed:
            return None
        load_s = ledger.so_far().wall_s
        ledger.turn_to("probe")
        return measure_throughput(
            self.pack,
            self.examples,
            rung_rows(self.splits.validation, self.settings, self.settings.rungs[0]),
            self.new_evaluator,
            self.settings,
            self.capacity,
            probed,
            device_name=device_name(),
            load_s=load_s,
            warms_up=device().type == "cuda",
        )

    def new_loop(
        self,
        registry: TrialRegistry,
        ledger: LedgerKeeper,
        *,
        admit_wait_s: float,
        decision_wait_s: float,
    ) -> PackLoop:
        """The loop that trains the registry's trials in the pack."""
        max_steps = self.settings.max_steps
        last = self.new_evaluator(rung_rows(self.splits.validation, self.settings, max_steps))
        first_rows = rung_rows(self.splits.validation, self.settings, self.settings.rungs[0])
        before = last if len(first_rows) == len(last.rows) else self.new_evaluator(first_rows)
        return PackLoop(
            self.pack,
            lambda step: last if step >= max_steps else before,
            self.examples,
            registry,
            admit_wait_s=admit_wait_s,
            decision_wait_s=decision_wait_s,
            ledger=ledger,
        )

    def run_final_test(
        self, loop: PackLoop, adapters: Mapping[str, Path], *, has_base: bool
    ) -> dict[str, EvalResult]:
        """Scores as of trainables.final_test.score, in the slots of the loop that are free."""
        test = self.new_evaluator(fixed_slice(self.splits.test, len(self.splits.test)))
        tested: dict[str, Path | None] = {"test_base": None} if has_base else {}
        tested |= adapters
        scores = dict(zip(tested, loop.score_adapters(list(tested.values()), test), strict=True))
        if has_base:
            validation_rows = rung_rows(
                self.splits.validation, self.settings, self.settings.max_steps
            )
            evaluator = self.new_evaluator(validation_rows)
            (scores["validation_base"],) = loop.score_adapters([None], evaluator)
        return scores


def load_pack(settings: TrainingSettings, capacity: Capacity) -> LoadedPack:
    """Read the rows and the base once, for all trials.

    Raises:
        SweepAborted: the rows cannot be read.
    """
    reset_peak()
    tokenizer = load_tokenizer(settings.model)  # transformers loads its parts in one thread
    with ThreadPoolExecutor(2) as pool:  # what these two import has no module in common
        loading = pool.submit(new_pack, settings, capacity)
        metrics = pool.submit(load_metrics)
        splits = read_rows(settings.rows_dir)
        examples = encode_training_rows(
            tokenizer, splits.train, settings.max_length_tokens, settings.max_new_tokens
        )
        pack = loading.result()
        metrics.result()
    new_evaluator = partial(_new_evaluator, settings, capacity, tokenizer, splits.scoring)
    return LoadedPack(pack, splits, examples, new_evaluator, settings, capacity)


def new_pack(settings: TrainingSettings, capacity: Capacity) -> Pack:
    """An empty pack over a base that nothing else holds."""
    pack = Pack(
        load_base(settings.model, settings.compute_dtype),
        num_slots=capacity.num_slots,
        max_rank=capacity.max_rank,
        max_tokens=capacity.max_tokens,
        is_dequantised=capacity.is_dequantised,
        is_checkpointed=capacity.is_checkpointed,
        is_fast=device().type == "cuda" and settings.compute_dtype == "bfloat16",
    )
    free_memory()  # the base's NF4 weights, which stand in a cycle of references
    return pack


def device_name() -> str:
    """Name of the GPU, or "cpu"."""
    return torch.cuda.get_device_name() if device().type == "cuda" else "cpu"


def _new_evaluator(
    pack_settings: TrainingSettings,
    capacity: Capacity,
    tokenizer: PreTrainedTokenizerBase,
    scoring: Scoring,
    rows: Sequence[Row],
    settings: TrainingSettings | None = None,
) -> PackEvaluator:
    return PackEvaluator(
        tokenizer,
        rows,
        scoring,
        settings or pack_settings,
        max_tokens=capacity.eval_tokens,
        is_graphed=device().type == "cuda",
    )
