"""From a model's answers to its scores: the part of an evaluation that both engines share.

The engines differ in how they get answers, losses and likelihoods out of a model; what is said of
them is computed here, so that a pack's numbers and a solo trial's are the same function's.

Shapes: S rows, L labels.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from trainables.data.rows import Row, Scoring
from trainables.metrics.classification import classification_scores
from trainables.metrics.eval_result import EvalResult
from trainables.metrics.score_texts import add_custom_scores, score_texts

END_OF_THOUGHT = "</think>"
"""One token of every tokenizer whose model can think."""
ALL_LABELS, TOP_LABELS = 20, 5
"""Up to how many labels the probabilities of all are kept, and of how many if there are more."""


def score_answers(
    tokenizer: PreTrainedTokenizerBase,
    answers: Sequence[Sequence[int]],
    rows: Sequence[Row],
    scoring: Scoring,
    *,
    thinking: bool,
    row_losses: Sequence[tuple[float, int]] = (),
) -> EvalResult:
    """The metrics of score_texts, gen_len_tokens, and eval_loss where losses are given.

    A model that thinks answers after its thought; one that has not come to its end says nothing.
    The share of such rows is unfinished_frac. Rows without targets are answered and not scored.

    Args:
        answers: tokens up to the stop, as generated, by row.
        scoring: names the language, and what is asked for beside what is always reported.
        row_losses: each target's summed loss and its tokens.
    """
    answer_ids = [_drop_thought(tokenizer, ids) if thinking else ids for ids in answers]
    texts = [tokenizer.decode(ids or [], skip_special_tokens=True).strip() for ids in answer_ids]
    if not all(row.target for row in rows):
        return EvalResult(metrics={}, answers=tuple(texts))
    metrics, row_scores = score_texts(texts, rows, scoring)
    if thinking:
        metrics["unfinished_frac"] = sum(ids is None for ids in answer_ids) / len(answer_ids)
    metrics["gen_len_tokens"] = sum(len(ids) for ids in answers) / len(answers)
    if row_losses:
        metrics["eval_loss"] = _compute_mean_loss(row_losses)
    scored = EvalResult(
        metrics=metrics,
        answers=tuple(texts),
        row_scores=row_scores,
        row_losses=tuple(row_losses),
    )
    return add_custom_scores(scored, rows, scoring)


def score_labels(
    log_probs_SL: Tensor, rows: Sequence[Row], label_ids: Sequence[list[int]], scoring: Scoring
) -> EvalResult:
    """The metrics of metrics/classification.py, and eval_loss; ties go to the first label.

    A label's probability is its likelihood's share of the likelihoods of all labels. Rows without
    targets are answered and not scored.

    Args:
        log_probs_SL: float64, of each row and label; NaN is no choice, so a model that gives it
            has a loss of NaN.
        rows: S; each target is one of the labels, or all are blank.
        label_ids: tokens of each label with its end of turn, as encode_targets gives them.
        scoring: names the labels.
    """
    num_kept = len(scoring.labels) if len(scoring.labels) <= ALL_LABELS else TOP_LABELS
    shares_SL = log_probs_SL.softmax(dim=1)
    order_SL = log_probs_SL.nan_to_num(-math.inf).argsort(dim=1, descending=True, stable=True)
    order_SL = order_SL[:, :num_kept]
    chosen = order_SL[:, 0].tolist()
    answers = tuple(scoring.labels[label] for label in chosen)
    probabilities = tuple(
        {scoring.labels[label]: round(share, 6) for label, share in zip(*pair, strict=True)}
        for pair in zip(order_SL.tolist(), shares_SL.gather(1, order_SL).tolist(), strict=True)
    )
    if not all(row.target for row in rows):
        return EvalResult(metrics={}, answers=answers, probabilities=probabilities)
    targets = [scoring.labels.index(row.target) for row in rows]
    scores = classification_scores(
        answers, [row.target for row in rows], scoring.labels, scoring.metrics
    )
    losses = (-log_probs_SL[torch.arange(len(rows)), targets]).tolist()
    row_losses = [(loss, len(label_ids[t])) for loss, t in zip(losses, targets, strict=True)]
    is_right = [label == target for label, target in zip(chosen, targets, strict=True)]
    scored = EvalResult(
        metrics={**scores, "eval_loss": _compute_mean_loss(row_losses)},
        answers=answers,
        row_scores={"accuracy": tuple(100.0 * right for right in is_right)},
        probabilities=probabilities,
        row_losses=tuple(row_losses),
    )
    return add_custom_scores(scored, rows, scoring)


def _compute_mean_loss(row_losses: Sequence[tuple[float, int]]) -> float:
    """Mean a token over all rows."""
    return sum(loss for loss, _ in row_losses) / sum(num for _, num in row_losses)


def _drop_thought(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[int] | None:
    """The answer's tokens behind the thought; None if the thought has no end."""
    end = tokenizer.get_vocab()[END_OF_THOUGHT]
    return list(ids)[list(ids).index(end) + 1 :] if end in ids else None
