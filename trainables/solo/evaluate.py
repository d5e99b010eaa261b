"""Score a model on rows: greedy answers and ROUGE, or the likeliest label; and the true loss.

A label is chosen by its likelihood: no answer is generated, so none can be no label at all. It is
the likelihood of the whole answer that training taught: the label's tokens and the end of turn
after them, not divided by their number. So it is the probability that greedy decoding aims at, and
a label that begins another one competes fairly.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from trainables.config import TrainingSettings
from trainables.data.rows import Row, Scoring
from trainables.data.tokens import (
    IGNORED,
    Example,
    compute_prompt_limit,
    cut_at_stop,
    encode_rows,
    encode_targets,
)
from trainables.metrics.eval_result import EvalResult
from trainables.metrics.label_tree import LabelTree, grow_trees
from trainables.metrics.score_answers import score_answers, score_labels
from trainables.models.base_model import autocast
from trainables.models.chat_template import list_stop_ids, make_greedy_config
from trainables.models.model_facts import parse_facts


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
    limit = compute_prompt_limit(settings.max_length_tokens, settings.max_new_tokens)
    batch_size, thinking = settings.eval_batch_size, settings.thinking
    examples = encode_rows(tokenizer, rows, limit, thinking=thinking)
    prompts = [example.prompt_ids for example in examples]
    if scoring.kind == "classify":
        labels = encode_targets(tokenizer, scoring.labels)
        with inference(model), autocast(settings.compute_dtype):
            log_probs_SL = compute_label_log_probs(model, prompts, labels, batch_size)
        return score_labels(log_probs_SL, rows, labels, scoring)
    with inference(model), autocast(settings.compute_dtype):
        has_targets = all(row.target for row in rows)
        losses = compute_row_losses(model, examples, batch_size) if has_targets else []
        answers = generate(model, tokenizer, prompts, batch_size, settings.max_new_tokens)
    return score_answers(tokenizer, answers, rows, scoring, thinking=thinking, row_losses=losses)


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
    stops = list_stop_ids(tokenizer)
    config = GenerationConfig(**make_greedy_config(tokenizer, max_new_tokens))
    answers: list[list[int]] = [[] for _ in prompts]
    for indices in _batch_by_length(prompts, batch_size):
        input_ids, mask = pad_rows([prompts[i] for i in indices], tokenizer.pad_token_id, "left")
        output = model.generate(
            input_ids=input_ids.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=config,
        )
        for index, ids in zip(indices, output[:, input_ids.shape[1] :].tolist(), strict=True):
            answers[index] = cut_at_stop(ids, stops)
    return answers


def compute_row_losses(
    model: Any, examples: Sequence[Example], batch_size: int
) -> list[tuple[float, int]]:
    """Each example's loss, summed over its labelled tokens, and their number; teacher-forced."""
    losses = [(0.0, 0)] * len(examples)
    for indices in _batch_by_length([example.input_ids for example in examples], batch_size):
        logits, targets = _compute_label_logits(model, [examples[i] for i in indices])
        counts = [len(examples[i].target_ids) for i in indices]
        parts = torch.split(cross_entropy(logits, targets, reduction="none").double().cpu(), counts)
        for index, part in zip(indices, parts, strict=True):
            losses[index] = part.sum().item(), len(part)
    return losses


def compute_label_log_probs(
    model: Any, prompts: Sequence[list[int]], labels: Sequence[list[int]], batch_size: int
) -> Tensor:
    """float64 log-probability (S, L) of each label after each prompt.

    Args:
        labels: L, as encode_targets gives them.
        batch_size: prompts that are read together, once for each tree of labels.
    """
    causal = _get_causal_model(model)
    log_probs_SL = torch.empty(len(prompts), len(labels), dtype=torch.float64)
    is_recurrent = parse_facts(causal.config.to_dict()).is_hybrid
    trees = grow_trees(labels, causal.device, has_branches=not is_recurrent)
    read = _read_sequence if is_recurrent else _read_tree
    for indices in _batch_by_length(prompts, batch_size):
        for tree in trees:
            hidden = read(causal, [prompts[i] for i in indices], tree)
            log_probs = tree.compute_log_probs(hidden, causal.get_output_embeddings()).cpu()
            log_probs_SL[torch.tensor(indices)[:, None], torch.tensor(tree.labels)] = log_probs
    return log_probs_SL


def _read_tree(causal: Any, prompts: Sequence[list[int]], tree: LabelTree) -> Tensor:
    """The last hidden states (S, 1 + N, features) of the prompts' last tokens and of the nodes."""
    ids, mask = (part.to(causal.device) for part in pad_rows(prompts, 0, "right"))  # (S, tokens)
    (num_rows, num_prompt), num_nodes = ids.shape, len(tree.tokens_N)
    lengths, num_positions = mask.sum(dim=1), num_prompt + num_nodes
    position_ids = torch.arange(num_prompt, device=ids.device).expand_as(ids)
    position_ids = torch.cat((position_ids, lengths[:, None] + tree.depths_N), dim=1)
    is_seen = mask.new_ones(num_rows, num_prompt, num_positions, dtype=torch.bool).tril()
    is_seen = torch.cat((is_seen, tree.find_visible(lengths, num_prompt, num_positions)), dim=1)
    masks = {"full_attention": is_seen[:, None]}
    if causal.config.sliding_window:
        distance = position_ids[:, :, None] - position_ids[:, None]
        is_near = distance < causal.config.sliding_window
        masks["sliding_attention"] = (is_seen & is_near)[:, None]
    is_uniform = causal.config.model_type == "qwen3_moe"  # its decoder takes one mask, not several
    hidden = causal.base_model(
        input_ids=torch.cat((ids, tree.tokens_N.expand(num_rows, -1)), dim=1),
        attention_mask=list(masks.values())[-1] if is_uniform else masks,
        position_ids=position_ids,
        use_cache=False,
    ).last_hidden_state
    last = hidden[torch.arange(num_rows, device=ids.device), lengths - 1]
    return torch.cat((last[:, None], hidden[:, num_prompt:]), dim=1)


def _read_sequence(causal: Any, prompts: Sequence[list[int]], tree: LabelTree) -> Tensor:
    """As _read_tree, of a tree of one label, whose tokens follow each prompt at once."""
    label = tree.tokens_N.tolist()
    ids, mask = pad_rows([[*prompt, *label] for prompt in prompts], 0, "right")
    hidden: Tensor = causal.base_model(
        input_ids=ids.to(causal.device), attention_mask=mask.to(causal.device), use_cache=False
    ).last_hidden_state
    last = torch.tensor([len(prompt) - 1 for prompt in prompts])[:, None]
    return hidden[torch.arange(len(prompts))[:, None], last + torch.arange(1 + len(label))]


def _compute_label_logits(model: Any, examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """float32 logits (labels, vocabulary) and targets (labels,), row after row.

    The head sees labelled positions only: all logits of a batch would be gigabytes.
    """
    causal = _get_causal_model(model)
    input_ids, mask = pad_rows([example.input_ids for example in examples], 0, "right")
    labels, _ = pad_rows([example.labels[1:] for example in examples], IGNORED, "right")
    is_labelled = labels != IGNORED  # (rows, tokens - 1)
    hidden = causal.base_model(
        input_ids=input_ids.to(causal.device),
        attention_mask=mask.to(causal.device),
        use_cache=False,
    ).last_hidden_state[:, :-1]
    logits = causal.get_output_embeddings()(hidden[is_labelled.to(causal.device)])
    return logits.float(), labels[is_labelled].to(causal.device)


def _get_causal_model(model: Any) -> Any:
    return model if isinstance(model, PreTrainedModel) else model.get_base_model()  # PEFT's


def pad_rows(rows: Sequence[list[int]], pad_id: int, side: str) -> tuple[Tensor, Tensor]:
    """Tokens and attention mask, both (rows, tokens), with padding on the left or right."""
    ids = [torch.tensor(row) for row in rows]
    masks = [torch.ones_like(row) for row in ids]
    return pad_sequence(ids, True, pad_id, side), pad_sequence(masks, True, 0, side)


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


def _batch_by_length(rows: Sequence[list[int]], batch_size: int) -> Iterator[list[int]]:
    """Indices in batches of similar length, the longest first so that memory fails early."""
    order = sorted(range(len(rows)), key=lambda i: (-len(rows[i]), i))
    for begin in range(0, len(order), batch_size):
        yield order[begin : begin + batch_size]
