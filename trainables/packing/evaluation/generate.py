"""Greedy answers of many slots to the same prompts, in one batch over the resident base.

Shapes: K slots, S rows of a slot, T tokens of a row, N = S * T, A = K * S answers of a batch,
L tokens of an answer or labels, D features, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from trainables.data.tokens import Example, cut_at_stop
from trainables.packing.compute.pass_shapes import (
    CHUNK_LABELS,
    PROMPT_TOKENS,
    TOKENS_MULTIPLE,
    round_up,
)
from trainables.packing.compute.transfer import copy_to_device
from trainables.packing.evaluation.decode import Batch, decode_answers, is_stop
from trainables.packing.evaluation.slot_decoder import SlotDecoder, map_state

READ_MULTIPLE = 8
"""Rows that are read together are padded to a multiple of it, for aligned loads."""


@torch.no_grad()
def generate(
    decoder: SlotDecoder,
    examples: Sequence[Example],
    *,
    stop_ids: Sequence[int],
    max_new_tokens: int,
    max_tokens_per_batch: int,
    is_graphed: bool = False,
    before_batch: Callable[[], None] = lambda: None,
) -> tuple[list[list[list[int]]], Tensor]:
    """Each slot's answers as tokens without their end, in the order of the prompts; and the
    losses (K, S) of the rows' targets, summed over tokens. These are read behind the prompts, at no
    pass of their own.

    Args:
        examples: prompts of at least one token each; none need have a target.
        max_tokens_per_batch: positions of the cache, over all slots and rows, and what the rows'
            states are worth; a batch has one row a slot at least, even where that is more.
        is_graphed: capture the step as a CUDA graph for every shape and replay it.
        before_batch: called before each; what it raises ends the work.
    """
    answers: list[list[list[int]]] = [[[] for _ in examples] for _ in range(decoder.num_slots)]
    shape = (decoder.num_slots, len(examples))
    losses_KS = torch.zeros(shape, dtype=torch.float64, device=decoder.device)
    # An answer is written over the target, so a row has room for the longer of them.
    lengths = [e.num_prompt_tokens + max(max_new_tokens, len(e.target_ids)) for e in examples]
    state_positions = decoder.model.state_positions
    for indices in group_rows(lengths, decoder.num_slots, max_tokens_per_batch, state_positions):
        before_batch()
        num_positions = round_up(lengths[indices[0]], TOKENS_MULTIPLE)
        some = [examples[i] for i in indices]
        batch, some_losses_KS = _prefill(decoder, some, num_positions, stop_ids, max_new_tokens)
        losses_KS[:, copy_to_device(torch.tensor(indices), decoder.device)] = some_losses_KS
        decode_answers(batch, max_new_tokens, is_graphed)
        rows = batch.answers_AL.view(decoder.num_slots, -1, max_new_tokens).tolist()
        del batch  # its cache must go before the next one comes
        for of_slot, row in zip(answers, rows, strict=True):
            for index, ids in zip(indices, row, strict=False):
                of_slot[index] = cut_at_stop(ids, stop_ids)
    return answers, losses_KS


def group_rows(
    lengths: Sequence[int],
    num_slots: int,
    max_tokens: int,
    state_positions: int = 0,
    max_read_tokens: int | None = None,
) -> Iterator[list[int]]:
    """Indices of rows of similar length, the longest first so that memory fails early.

    Every batch but the last has a power of two of rows, for few shapes.

    Args:
        max_tokens: positions of the cache, over all slots and rows.
        state_positions: those that a row takes whatever its length.
        max_read_tokens: of a batch that is read at once; None for any number.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    while order:
        num_positions = round_up(lengths[order[0]], TOKENS_MULTIPLE)
        room = max_tokens // (num_slots * (num_positions + state_positions))
        if max_read_tokens is not None:
            room = min(room, max_read_tokens // (num_slots * num_positions))
        num_rows = 1 << (max(1, room).bit_length() - 1)
        yield order[:num_rows]
        order = order[num_rows:]


def pad_right(
    examples: Sequence[Example], device: torch.device, multiple: int = TOKENS_MULTIPLE
) -> tuple[Tensor, Tensor]:
    """Tokens (S, T) padded on the right to a multiple, and the prompts' lengths (S,)."""
    width = round_up(max(len(row.ids) for row in examples), multiple)
    ids_ST = torch.tensor([row.input_ids + [0] * (width - len(row.ids)) for row in examples])
    lengths_S = torch.tensor([row.num_prompt_tokens for row in examples])
    return copy_to_device(ids_ST, device), copy_to_device(lengths_S, device)


def _prefill(
    decoder: SlotDecoder,
    examples: Sequence[Example],
    num_positions: int,
    stop_ids: Sequence[int],
    max_new_tokens: int,
) -> tuple[Batch, Tensor]:
    """A batch with the first token of every answer, and the losses (K, S) of the targets.

    Prompts are read some at a time. Rows that fill up the batch's shape are not read, and done.
    """
    num_slots, device = decoder.num_slots, decoder.device
    num_rows = 1 << (len(examples) - 1).bit_length()
    cache = decoder.make_cache(num_rows, num_positions)
    tokens_KS = torch.zeros(num_slots, num_rows, dtype=torch.int64, device=device)
    positions_KS = torch.ones_like(tokens_KS)
    losses = []
    for rows in _split_prompts(examples, num_slots):
        some = examples[rows]
        ids_ST, lengths_S = pad_right(some, device, READ_MULTIPLE)
        width = ids_ST.shape[1]
        cache_of_rows = [map_state(state, itemgetter((slice(None), rows))) for state in cache]
        num_targets = max(len(example.target_ids) for example in some)
        x_KND = decoder.prefill(ids_ST, lengths_S, cache_of_rows, num_targets)
        last_S = lengths_S - 1 + torch.arange(len(some), device=device) * width
        tokens_KS[:, rows] = decoder.logits(x_KND[:, last_S]).argmax(dim=-1)
        positions_KS[:, rows] = lengths_S
        losses.append(_sum_losses(decoder, x_KND, some, width))
    stops = torch.tensor(stop_ids, dtype=torch.int64, device=device)
    is_filler_S = torch.arange(num_rows, device=device) >= len(examples)
    answers_AL = tokens_KS.new_zeros(tokens_KS.numel(), max_new_tokens)
    answers_AL[:, 0] = tokens_KS.flatten()
    batch = Batch(
        decoder=decoder,
        cache=cache,
        rotation=decoder.compute_rotation(num_positions),
        stops=stops,
        tokens_KS=tokens_KS,
        positions_KS=positions_KS,
        is_done_KS=is_stop(tokens_KS, stops) | is_filler_S,
        answer_row_KS=torch.arange(tokens_KS.numel(), device=device).view_as(tokens_KS),
        answers_AL=answers_AL,
        column_1=torch.ones(1, dtype=torch.int64, device=device),
    )
    return batch, torch.cat(losses, dim=1)


def _split_prompts(examples: Sequence[Example], num_slots: int) -> Iterator[slice]:
    """Neighbouring rows that are read together, each time as many as PROMPT_TOKENS hold."""
    first = widest = 0
    for row, example in enumerate(examples):
        width = round_up(len(example.ids), READ_MULTIPLE)
        widest = max(widest, width)
        if row > first and num_slots * (row + 1 - first) * widest > PROMPT_TOKENS:
            yield slice(first, row)
            first, widest = row, width
    yield slice(first, len(examples))


def _sum_losses(
    decoder: SlotDecoder, x_KND: Tensor, examples: Sequence[Example], width: int
) -> Tensor:
    """Losses (K, S), summed over the labels of the rows that gave x, width tokens each."""
    most_labels = max(len(example.target_ids) for example in examples)
    losses_KSL = torch.zeros(
        (decoder.num_slots, len(examples), most_labels), dtype=torch.float64, device=decoder.device
    )
    if not most_labels:
        return losses_KSL.sum(dim=2)
    # Each label has a place of its own in the table, so the sums' order is fixed, unlike index_add.
    rows = [row for row, example in enumerate(examples) for _ in example.target_ids]
    places = [place for example in examples for place in range(len(example.target_ids))]
    firsts = [row * width + e.num_prompt_tokens - 1 for row, e in enumerate(examples)]
    index = [firsts[row] + place for row, place in zip(rows, places, strict=True)]
    targets = [token for example in examples for token in example.target_ids]
    share = max(1, CHUNK_LABELS // decoder.num_slots)  # the head sees some labels at a time
    chunks = [
        torch.split(copy_to_device(torch.tensor(numbers), decoder.device), share)
        for numbers in (index, targets, rows, places)
    ]
    for at_L, targets_L, rows_L, places_L in zip(*chunks, strict=True):
        logits_KLV = decoder.logits(x_KND[:, at_L])
        targets_KL = targets_L.expand(logits_KLV.shape[:2])
        losses = cross_entropy(
            logits_KLV.flatten(0, 1).float(), targets_KL.flatten(), reduction="none"
        )
        losses_KSL[:, rows_L, places_L] = losses.view_as(targets_KL).double()
    return losses_KSL.sum(dim=2)
