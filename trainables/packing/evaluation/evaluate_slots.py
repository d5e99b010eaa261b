"""Evaluate a pack's slots on the rows on which solo.evaluate evaluates one model.

Shapes: K slots, S rows of a slot, T tokens of a row.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from trainables.config import TrainingSettings
from trainables.data.rows import Row, Scoring
from trainables.data.tokens import Example, encode_targets
from trainables.metrics.eval_result import EvalResult
from trainables.metrics.score_answers import score_answers, score_labels, stop_ids
from trainables.packing.compute.model import PackedModel
from trainables.packing.compute.pass_shapes import PROMPT_TOKENS
from trainables.packing.evaluation.classify import label_log_probs
from trainables.packing.evaluation.generate import answers_and_losses, batches, pad_right
from trainables.packing.evaluation.slot_decoder import SlotDecoder
from trainables.packing.evaluation.target_losses import summed_losses


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
    """What solo.evaluate.evaluate gives, for each slot; all slots must share the settings.

    The targets are read with the prompts, so their losses cost no pass of their own.

    Args:
        rows: what is asked.
        examples: the rows as tokens.encode_rows gives them.

    The others are those of generate.
    """
    if not slots:
        return []
    decoder = SlotDecoder.of(model, slots)
    if scoring.kind == "classify":
        label_ids = encode_targets(tokenizer, scoring.labels)
        prompts = [example.prompt_ids for example in examples]
        log_probs_KSL = label_log_probs(decoder, prompts, label_ids, max_tokens_per_batch)
        return [score_labels(log_probs, rows, label_ids, scoring) for log_probs in log_probs_KSL]
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
        score_answers(tokenizer, ids, rows, scoring, thinking=settings.thinking, eval_loss=loss)
        for ids, loss in zip(answers, losses, strict=True)
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
        ids_ST, _ = pad_right(batch, decoder.device)
        totals_K += summed_losses(decoder, decoder.read(ids_ST), batch, ids_ST.shape[1])
    return _means(totals_K, examples)


def _means(totals_K: Tensor, examples: Sequence[Example]) -> list[float]:
    num_labels = sum(len(example.target_ids) for example in examples)
    means: list[float] = (totals_K / num_labels).tolist()
    return means
