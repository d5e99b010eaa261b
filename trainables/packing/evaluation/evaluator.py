"""Scores of a pack's slots on the validation rows, in as large batches as the memory allows."""

from collections.abc import Callable, Sequence
from importlib import import_module

from transformers import PreTrainedTokenizerBase

from trainables.config import TrainingSettings
from trainables.data.rows import Row, Scoring
from trainables.data.tokens import compute_prompt_limit, encode_rows, encode_targets
from trainables.metrics.eval_result import EvalResult
from trainables.models.chat_template import list_stop_ids
from trainables.packing.compute.model import PackedModel
from trainables.packing.compute.pass_shapes import TOKENS_MULTIPLE, round_up
from trainables.packing.evaluation.classify import compute_label_log_probs
from trainables.packing.evaluation.generate import generate
from trainables.packing.evaluation.slot_decoder import SlotDecoder


def load_metrics() -> None:
    """Import what the first evaluation would import: NLTK, which takes a second."""
    import_module("trainables.metrics.score_answers")
    import_module("nltk.stem.porter")


class PackEvaluator:
    """Scores slots on the rows on which solo.evaluate scores one model, with equal results.

    Args:
        max_tokens: positions of the cache, over all slots and rows, and what the rows' states are
            worth.
        is_graphed: capture decoding as CUDA graphs.
        state_positions: what the state of a row is worth (PackedModel.state_positions).
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        rows: Sequence[Row],
        scoring: Scoring,
        settings: TrainingSettings,
        max_tokens: int,
        is_graphed: bool,
        state_positions: int,
    ) -> None:
        self.rows = rows
        self.max_tokens = max_tokens
        self._tokenizer = tokenizer
        self._scoring = scoring
        self._settings = settings
        self._is_graphed = is_graphed
        limit = compute_prompt_limit(settings.max_length_tokens, settings.max_new_tokens)
        self._examples = encode_rows(tokenizer, rows, limit, thinking=settings.thinking)
        self.num_tokens = sum(len(example.ids) for example in self._examples)
        """Tokens of the rows' prompts and targets."""
        self.target_tokens = max(len(example.target_ids) for example in self._examples)
        """Tokens of the longest target."""
        self.row_tokens = max(
            row.num_prompt_tokens + max(len(row.target_ids), settings.max_new_tokens)
            for row in self._examples
        )
        """Tokens of the longest row, with its answer."""
        self.row_positions = round_up(self.row_tokens, TOKENS_MULTIPLE) + state_positions
        """What the longest row takes of the cache."""

    def evaluate(
        self,
        model: PackedModel,
        slots: Sequence[int],
        before_batch: Callable[[], None] = lambda: None,
    ) -> list[EvalResult]:
        """The scores of each slot: all slots in one batch, unless not even one row of each fits.

        Args:
            before_batch: called before each; what it raises ends the evaluation.
        """
        share = max(1, self.max_tokens // self.row_positions)
        results = []
        for first in range(0, len(slots), share):
            results += self._evaluate_together(model, slots[first : first + share], before_batch)
        return results

    def use_less_memory(self) -> bool:
        """Halve the cache; False if it holds one row of one slot only."""
        if self.max_tokens <= self.row_positions:
            return False
        self.max_tokens = max(self.max_tokens // 2, self.row_positions)
        return True

    def _evaluate_together(
        self, model: PackedModel, slots: Sequence[int], before_batch: Callable[[], None]
    ) -> list[EvalResult]:
        from trainables.metrics.score_answers import score_answers, score_labels  # see load_metrics

        decoder = SlotDecoder.from_slots(model, slots)
        if self._scoring.kind == "classify":
            labels = encode_targets(self._tokenizer, self._scoring.labels)
            prompts = [example.prompt_ids for example in self._examples]
            log_probs_KSL = compute_label_log_probs(
                decoder, prompts, labels, self.max_tokens, before_batch
            )
            return [
                score_labels(slot_SL, self.rows, labels, self._scoring) for slot_SL in log_probs_KSL
            ]
        answers, losses_KS = generate(
            decoder,
            self._examples,
            stop_ids=list_stop_ids(self._tokenizer),
            max_new_tokens=self._settings.max_new_tokens,
            max_tokens_per_batch=self.max_tokens,
            is_graphed=self._is_graphed,
            before_batch=before_batch,
        )
        num_labels = [len(example.target_ids) for example in self._examples]
        return [
            score_answers(
                self._tokenizer,
                ids,
                self.rows,
                self._scoring,
                thinking=self._settings.thinking,
                row_losses=list(zip(losses, num_labels, strict=True)),
            )
            for ids, losses in zip(answers, losses_KS.tolist(), strict=True)
        ]
