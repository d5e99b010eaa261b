"""Greedy answers of many slots to the same prompts, in one batch over the resident base.

Shapes: K slots, S rows of a slot, T tokens of a row, N = S * T, A = K * S answers of a batch,
L tokens of an answer, D features.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from trainables.data.tokens import Example
from trainables.metrics.score_answers import until_stop
from trainables.packing.compute.model import PackedModel
from trainables.packing.compute.pass_shapes import PROMPT_TOKENS, TOKENS_MULTIPLE, round_up
from trainables.packing.compute.transfer import copy_to_device
from trainables.packing.evaluation.decode import Batch, decode, is_stop
from trainables.packing.evaluation.kv_cache import KeysValues
from trainables.packing.evaluation.slot_decoder import SlotDecoder
from trainables.packing.evaluation.target_losses import summed_losses

READ_MULTIPLE = 8
"""Rows that are read together are padded to a multiple of it, for aligned loads."""


@torch.no_grad()
def generate(
    model: PackedModel,
    slots: Sequence[int],
    prompts: Sequence[list[int]],
    *,
    stop_ids: Sequence[int],
    max_new_tokens: int,
    max_tokens_per_batch: int,
    is_graphed: bool = False,
) -> list[list[list[int]]]:
    """Each slot's answers as tokens without their end, in the order of the prompts.

    Args:
        model: of the pack; its adapters are read as they are now.
        slots: which to ask; the others cost nothing.
        prompts: not empty, each at least one token.
        stop_ids: tokens that end an answer.
        max_new_tokens: longest answer.
        max_tokens_per_batch: positions of the cache, over all slots and rows; a batch has one row a
            slot at least, even where that is more.
        is_graphed: capture the step as a CUDA graph for every shape and replay it.
    """
    if not slots:
        return []
    answers, _ = answers_and_losses(
        SlotDecoder.of(model, slots),
        [Example(prompt, []) for prompt in prompts],
        stop_ids=stop_ids,
        max_new_tokens=max_new_tokens,
        max_tokens_per_batch=max_tokens_per_batch,
        is_graphed=is_graphed,
    )
    return answers


@torch.no_grad()
def answers_and_losses(
    decoder: SlotDecoder,
    examples: Sequence[Example],
    *,
    stop_ids: Sequence[int],
    max_new_tokens: int,
    max_tokens_per_batch: int,
    is_graphed: bool,
) -> tuple[list[list[list[int]]], Tensor]:
    """Answers to the prompts, and each slot's summed loss (K,) of the targets.

    A target is read behind its prompt and then written over by the answer.
    """
    answers: list[list[list[int]]] = [[[] for _ in examples] for _ in range(decoder.num_slots)]
    losses_K = torch.zeros(decoder.num_slots, dtype=torch.float64, device=decoder.device)
    lengths = [_num_positions(example, max_new_tokens) for example in examples]
    for indices in batches(lengths, decoder.num_slots, max_tokens_per_batch):
        batch = _read_rows(decoder, [examples[i] for i in indices], stop_ids, max_new_tokens)
        losses_K += batch.losses_K
        decode(batch, max_new_tokens, is_graphed)
        rows = batch.answers_AL.view(decoder.num_slots, -1, max_new_tokens).tolist()
        del batch  # its cache must go before the next one comes
        for of_slot, row in zip(answers, rows, strict=True):
            for index, ids in zip(indices, row, strict=False):
                of_slot[index] = until_stop(ids, stop_ids)
    return answers, losses_K


def batches(lengths: Sequence[int], num_slots: int, max_tokens: int) -> Iterator[list[int]]:
    """Indices of rows of similar length, the longest first so that memory fails early.

    Every batch but the last has a power of two of rows, for few shapes.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    while order:
        num_positions = round_up(lengths[order[0]], TOKENS_MULTIPLE)
        room = max(1, max_tokens // (num_slots * num_positions))
        num_rows = 1 << (room.bit_length() - 1)
        yield order[:num_rows]
        order = order[num_rows:]


def _num_positions(example: Example, max_new_tokens: int) -> int:
    """Room for the prompt and the longer of answer and target."""
    return len(example.prompt_ids) + max(max_new_tokens, len(example.target_ids))


def _read_rows(
    decoder: SlotDecoder, examples: Sequence[Example], stop_ids: Sequence[int], max_new_tokens: int
) -> Batch:
    """A batch with the first token of every answer; rows that fill up its shape are done."""
    num_rows = 1 << (len(examples) - 1).bit_length()
    longest = max(_num_positions(example, max_new_tokens) for example in examples)
    num_positions = round_up(longest, TOKENS_MULTIPLE)
    cache = decoder.new_cache(num_rows, num_positions)
    tokens_KS, losses_K = _read(decoder, examples, cache)
    lengths_S = torch.ones(num_rows, dtype=torch.int64)
    lengths_S[: len(examples)] = torch.tensor([len(row.prompt_ids) for row in examples])
    stops = torch.tensor(stop_ids, dtype=torch.int64, device=decoder.device)
    is_filler_S = torch.arange(num_rows, device=decoder.device) >= len(examples)
    home_KS = torch.arange(tokens_KS.numel(), device=decoder.device).view_as(tokens_KS)
    answers_AL = tokens_KS.new_zeros(tokens_KS.numel(), max_new_tokens)
    answers_AL[:, 0] = tokens_KS.flatten()
    return Batch(
        decoder=decoder,
        cache=cache,
        rotation=decoder.rotation(num_positions),
        stops=stops,
        tokens_KS=tokens_KS,
        positions_KS=copy_to_device(lengths_S, decoder.device).repeat(decoder.num_slots, 1),
        is_done_KS=is_stop(tokens_KS, stops) | is_filler_S,
        home_KS=home_KS,
        answers_AL=answers_AL,
        column_1=torch.ones(1, dtype=torch.int64, device=decoder.device),
        losses_K=losses_K,
    )


def pad_right(
    examples: Sequence[Example], device: torch.device, multiple: int = TOKENS_MULTIPLE
) -> tuple[Tensor, Tensor]:
    """Tokens (S, T) padded on the right to a multiple, and the prompts' lengths (S,)."""
    width = round_up(max(len(row.input_ids) for row in examples), multiple)
    ids_ST = torch.tensor([row.input_ids + [0] * (width - len(row.input_ids)) for row in examples])
    lengths_S = torch.tensor([len(row.prompt_ids) for row in examples])
    return copy_to_device(ids_ST, device), copy_to_device(lengths_S, device)


def _read(
    decoder: SlotDecoder, examples: Sequence[Example], cache: Sequence[KeysValues]
) -> tuple[Tensor, Tensor]:
    """Read rows into the cache, some at a time; the token (K, S) after each prompt, and losses.

    Rows that fill up the cache's shape are not read.
    """
    num_rows = cache[0].keys_KSGTC.shape[1]
    tokens_KS = torch.zeros(decoder.num_slots, num_rows, dtype=torch.int64, device=decoder.device)
    losses_K = torch.zeros(decoder.num_slots, dtype=torch.float64, device=decoder.device)
    for rows in _reads(examples, decoder.num_slots):
        some = examples[rows]
        ids_ST, lengths_S = pad_right(some, decoder.device, READ_MULTIPLE)
        width = ids_ST.shape[1]
        cache_of_rows = [KeysValues(keys[:, rows], values[:, rows]) for keys, values in cache]
        x_KND = decoder.read(ids_ST, cache_of_rows)
        last_S = lengths_S - 1 + torch.arange(len(some), device=decoder.device) * width
        tokens_KS[:, rows] = decoder.logits(x_KND[:, last_S]).argmax(dim=-1)
        losses_K += summed_losses(decoder, x_KND, some, width)
    return tokens_KS, losses_K


def _reads(examples: Sequence[Example], num_slots: int) -> Iterator[slice]:
    """Neighbouring rows that are read together, each time as many as PROMPT_TOKENS hold."""
    first = widest = 0
    for row, example in enumerate(examples):
        widest = max(widest, round_up(len(example.input_ids), READ_MULTIPLE))
        if row > first and num_slots * (row + 1 - first) * widest > PROMPT_TOKENS:
            yield slice(first, row)
            first, widest = row, round_up(len(example.input_ids), READ_MULTIPLE)
    yield slice(first, len(examples))
