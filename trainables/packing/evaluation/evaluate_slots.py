"""Score slots on the same rows as evaluate.evaluate scores one model.

Shapes: K slots, S rows of a slot, T tokens of a row.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from trainables.config import TrainingSettings
from trainables.data.rows import Row, Scoring
from trainables.data.tokens import Example
from trainables.metrics.eval_result import EvalResult
from trainables.packing.compute.model import PackedModel
from trainables.packing.evaluation.classify import log_probs
from trainables.packing.evaluation.generate import (
    PROMPT_TOKENS,
    answers_and_losses,
    batches,
    padded,
)
from trainables.packing.evaluation.slot_decoder import SlotDecoder
from trainables.packing.evaluation.target_losses import summed_losses
from trainables.solo.classify import label_ids, scores_of_choices
from trainables.solo.evaluate import score_answers, stop_ids, with_loss


def evaluate_slots(
    model: PackedModel,
    slots: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    examples: Sequence[Example],
    scoring: Scoring,
    settings: TrainingSettings,
    *,
    max_tokens_per_batch: int,
    is_graphed: bool = False,
) -> list[EvalResult]:
    """What evaluate.evaluate gives for each slot; all slots must share the settings.

    The targets are read with the prompts, so their losses cost no pass of their own.

    Args:
        rows: what is asked.
        examples: the rows as examples.encode_rows gives them.

    The others are those of generate.
    """
    if not slots:
        return []
    decoder = SlotDecoder.of(model, slots)
    if scoring.kind == "classify":
        labels = label_ids(tokenizer, scoring)
        prompts = [example.prompt_ids for example in examples]
        found_KSL = log_probs(decoder, prompts, labels, max_tokens_per_batch)
        return [scores_of_choices(found_SL, rows, labels, scoring) for found_SL in found_KSL]
    answers, losses_K = answers_and_losses(
        decoder,
        examples,
        stop_ids=stop_ids(tokenizer),
        max_new_tokens=settings.max_new_tokens,
        max_tokens_per_batch=max_tokens_per_batch,
        is_graphed=is_graphed,
    )
    losses = _means(losses_K, examples)
    return [
        with_loss(score_answers(tokenizer, each, rows, scoring, thinking=settings.thinking), loss)
        for each, loss in zip(answers, losses, strict=True)
    ]


@torch.no_grad()
def eval_losses(
    model: PackedModel,
    slots: Sequence[int],
    examples: Sequence[Example],
    *,
    max_tokens_per_batch: int,
) -> list[float]:
    """Each slot's mean loss a labelled token over all the examples, teacher-forced.

    Where answers are wanted too, evaluate_slots gives both for one reading of the prompts.
    """
    if not slots:
        return []
    decoder = SlotDecoder.of(model, slots)
    totals_K = torch.zeros(len(slots), dtype=torch.float64, device=decoder.device)
    lengths = [len(example.input_ids) for example in examples]
    limit = min(max_tokens_per_batch, PROMPT_TOKENS)
    for indices in batches(lengths, len(slots), limit):
        batch = [examples[i] for i in indices]
        ids_ST, _ = padded(batch, decoder.device)
        totals_K += summed_losses(decoder, decoder.read(ids_ST), batch, ids_ST.shape[1])
    return _means(totals_K, examples)


def _means(totals_K: Tensor, examples: Sequence[Example]) -> list[float]:
    num_labels = sum(len(example.target_ids) for example in examples)
    means: list[float] = (totals_K / num_labels).tolist()
    return means
