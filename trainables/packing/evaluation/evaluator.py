"""Scores of a pack's slots on the validation rows, in as large batches as the memory allows."""

from collections.abc import Sequence
from importlib import import_module

from transformers import PreTrainedTokenizerBase

from trainables.config import TrainingSettings
from trainables.data.rows import Row, Scoring
from trainables.data.tokens import encode_rows, prompt_limit
from trainables.metrics.eval_result import EvalResult
from trainables.packing.compute.model import PackedModel


def load_metrics() -> None:
    """Import what the first evaluation would import: a second of NLTK."""
    import_module("trainables.packing.evaluation.evaluate_slots")


class PackEvaluator:
    """What evaluate_slots needs beside the slots.

    Args:
        tokenizer: the model's.
        rows: validation rows.
        scoring: of their answers.
        settings: of the sweep.
        max_tokens: positions of the key-value cache, over all slots and rows.
        is_graphed: capture decoding as CUDA graphs.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        rows: Sequence[Row],
        scoring: Scoring,
        settings: TrainingSettings,
        max_tokens: int,
        is_graphed: bool,
    ) -> None:
        self._tokenizer = tokenizer
        self._rows = rows
        self._scoring = scoring
        self._settings = settings
        self._max_tokens = max_tokens
        self._is_graphed = is_graphed
        limit = prompt_limit(settings.max_length_tokens, settings.max_new_tokens)
        self._examples = encode_rows(tokenizer, rows, limit, thinking=settings.thinking)
        self._row_tokens = max(
            len(row.prompt_ids) + max(len(row.target_ids), settings.max_new_tokens)
            for row in self._examples
        )

    @property
    def num_tokens(self) -> int:
        """Tokens of the rows' prompts and targets."""
        return sum(len(example.input_ids) for example in self._examples)

    @property
    def row_tokens(self) -> int:
        """Places that the longest row takes in the cache, with its answer."""
        return self._row_tokens

    @property
    def target_tokens(self) -> int:
        """Tokens of the longest target."""
        return max(len(example.target_ids) for example in self._examples)

    @property
    def rows(self) -> Sequence[Row]:
        """The rows that are scored."""
        return self._rows

    def evaluate(self, model: PackedModel, slots: Sequence[int]) -> list[EvalResult]:
        """The scores of each slot: all slots in one batch, unless not even one row of each fits."""
        from trainables.packing.evaluation.evaluate_slots import evaluate_slots  # see load_metrics

        share = max(1, self._max_tokens // self._row_tokens)
        results = []
        for first in range(0, len(slots), share):
            results += evaluate_slots(
                model,
                slots[first : first + share],
                self._tokenizer,
                self._rows,
                self._examples,
                self._scoring,
                self._settings,
                max_tokens_per_batch=self._max_tokens,
                is_graphed=self._is_graphed,
            )
        return results

    def use_less_memory(self) -> bool:
        """Halve the cache; False if it holds one row of one slot only."""
        if self._max_tokens <= self._row_tokens:
            return False
        self._max_tokens = max(self._max_tokens // 2, self._row_tokens)
        return True
