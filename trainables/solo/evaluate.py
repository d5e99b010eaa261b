"""Score a model on rows: greedy answers and ROUGE, or the likeliest label; and the true loss."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from trainables.config import TrainingSettings
from trainables.data.rows import Row, Scoring
from trainables.data.tokens import IGNORED, Example, encode_rows, encode_targets, prompt_limit
from trainables.metrics.eval_result import EvalResult
from trainables.metrics.score_answers import score_answers, score_labels, stop_ids, until_stop
from trainables.models.base_model import autocast
from trainables.solo.classify import label_log_probs


def evaluate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    scoring: Scoring,
    settings: TrainingSettings,
) -> EvalResult:
    """The scores of the rows: of summaries rouge1, rouge2, rougeL, rougeLsum (0 to 100),
    eval_loss and gen_len_tokens; of labels those of score_labels.

    It draws no random number and leaves the model's mode as it was, so training goes on as if
    nothing had happened.
    """
    limit = prompt_limit(settings.max_length_tokens, settings.max_new_tokens)
    examples = encode_rows(tokenizer, rows, limit, thinking=settings.thinking)
    prompts = [example.prompt_ids for example in examples]
    if scoring.kind == "classify":
        label_ids = encode_targets(tokenizer, scoring.labels)
        with inference(model), autocast(settings.compute_dtype):
            log_probs_SL = label_log_probs(
                _causal(model), prompts, label_ids, settings.eval_batch_size
            )
        return score_labels(log_probs_SL, rows, label_ids, scoring)
    with inference(model), autocast(settings.compute_dtype):
        loss = eval_loss(model, examples, settings.eval_batch_size)
        answers = generate(
            model,
            tokenizer,
            prompts,
            settings.eval_batch_size,
            settings.max_new_tokens,
        )
    return score_answers(
        tokenizer, answers, rows, scoring, thinking=settings.thinking, eval_loss=loss
    )


def generate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    batch_size: int,
    max_new_tokens: int,
) -> list[list[int]]:
    """Greedy answers as tokens without their end, in the order of the prompts.

    Prompts of similar length are generated together, padded on the left.
    """
    stops = stop_ids(tokenizer)
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        eos_token_id=stops,
        pad_token_id=tokenizer.pad_token_id,
    )
    answers: list[list[int]] = [[] for _ in prompts]
    for indices in _by_length([len(prompt) for prompt in prompts], batch_size):
        input_ids, mask = pad_left([prompts[i] for i in indices], tokenizer.pad_token_id)
        output = model.generate(
            input_ids=input_ids.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=config,
        )
        for index, ids in zip(indices, output[:, input_ids.shape[1] :].tolist(), strict=True):
            answers[index] = until_stop(ids, stops)
    return answers


def pad_left(rows: Sequence[list[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and attention mask, both (rows, tokens), with padding before the tokens."""
    width = max(map(len, rows))
    input_ids = [[pad_id] * (width - len(row)) + row for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(input_ids), torch.tensor(mask)


def eval_loss(model: Any, examples: Sequence[Example], batch_size: int) -> float:
    """Mean loss a labelled token over all the examples, teacher-forced.

    The head sees labelled positions only: all logits of a batch would be gigabytes.
    """
    total, count = 0.0, 0
    for indices in _by_length([len(example.input_ids) for example in examples], batch_size):
        loss, num_labels = _summed_loss(_causal(model), [examples[i] for i in indices])
        total += loss
        count += num_labels
    return total / count


def _summed_loss(causal: PreTrainedModel, examples: Sequence[Example]) -> tuple[float, int]:
    width = max(len(example.input_ids) for example in examples)
    gaps = [width - len(example.input_ids) for example in examples]
    pairs = list(zip(examples, gaps, strict=True))
    input_ids = torch.tensor([e.input_ids + [0] * gap for e, gap in pairs])  # (rows, tokens)
    mask = torch.tensor([[1] * (width - gap) + [0] * gap for gap in gaps])
    labels = torch.tensor([e.labels + [IGNORED] * gap for e, gap in pairs])[:, 1:]
    is_labelled = labels != IGNORED
    device = causal.device
    hidden = causal.base_model(
        input_ids=input_ids.to(device), attention_mask=mask.to(device), use_cache=False
    ).last_hidden_state[:, :-1]
    logits = causal.get_output_embeddings()(hidden[is_labelled.to(device)])  # (labels, vocabulary)
    loss = cross_entropy(logits.float(), labels[is_labelled].to(device), reduction="sum")
    return loss.item(), int(is_labelled.sum())


def _causal(model: Any) -> PreTrainedModel:
    """The causal language model, out of its PEFT wrapper if it has one."""
    is_bare = isinstance(model, PreTrainedModel)
    causal: PreTrainedModel = model if is_bare else model.get_base_model()
    return causal


@contextmanager
def inference(model: Any) -> Iterator[None]:
    """No gradient and no dropout; the mode of the model is as before afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def _by_length(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Indices in batches of similar length, the longest first so that memory fails early."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    for begin in range(0, len(order), batch_size):
        yield order[begin : begin + batch_size]
