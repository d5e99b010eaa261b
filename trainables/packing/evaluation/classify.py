"""The likelihood of every label for many slots: prompts are read once, labels follow one by one.

Shapes: K slots, S rows of a slot, T tokens of a row, L labels, D features, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from trainables.data.tokens import Example
from trainables.packing.compute.pass_shapes import (
    CHUNK_LABELS,
    PROMPT_TOKENS,
    TOKENS_MULTIPLE,
    round_up,
)
from trainables.packing.evaluation.generate import batches, pad_right
from trainables.packing.evaluation.kv_cache import KeysValues
from trainables.packing.evaluation.slot_decoder import SlotDecoder


@torch.no_grad()
def label_log_probs(
    decoder: SlotDecoder,
    prompts: Sequence[list[int]],
    labels: Sequence[list[int]],
    max_tokens_per_batch: int,
) -> Tensor:
    """float64 log-probability (K, rows, L) of each label after each prompt.

    Args:
        decoder: the slots to ask.
        prompts: as tokens.
        labels: each with its end of turn.
        max_tokens_per_batch: positions of the cache, over all slots and rows.
    """
    log_probs_KSL = torch.empty(decoder.num_slots, len(prompts), len(labels), dtype=torch.float64)
    longest = max(map(len, labels))
    lengths = [len(prompt) + longest for prompt in prompts]
    limit = min(max_tokens_per_batch, PROMPT_TOKENS)
    for indices in batches(lengths, decoder.num_slots, limit):
        examples = [Example(prompts[i], []) for i in indices]
        log_probs_KSL[:, indices] = _batch(decoder, examples, labels, longest).cpu()
    return log_probs_KSL


def _batch(
    decoder: SlotDecoder, examples: Sequence[Example], labels: Sequence[list[int]], longest: int
) -> Tensor:
    """Log-probabilities (K, S, L) for rows that are read together."""
    num_rows = len(examples)
    ids_ST, lengths_S = pad_right(examples, decoder.device)
    num_positions = round_up(ids_ST.shape[1] + longest, TOKENS_MULTIPLE)
    cache = decoder.new_cache(num_rows, num_positions)
    x_KND = decoder.read(ids_ST, cache)
    rows_S = torch.arange(num_rows, device=decoder.device) * ids_ST.shape[1]
    last_KSD = x_KND[:, rows_S + lengths_S - 1]
    rotation = decoder.rotation(num_positions)
    log_probs = [_label(decoder, last_KSD, lengths_S, cache, rotation, label) for label in labels]
    return torch.stack(log_probs, dim=2)


def _label(
    decoder: SlotDecoder,
    last_KSD: Tensor,
    lengths_S: Tensor,
    cache: Sequence[KeysValues],
    rotation: tuple[Tensor, Tensor],
    label: list[int],
) -> Tensor:
    """Log-probability (K, S) of one label; its keys stand where those of the one before stood.

    A token sees the positions up to its own, so what is left of a longer label is never seen.
    """
    shape_KS = last_KSD.shape[:2]
    total_KS = torch.zeros(shape_KS, dtype=torch.float64, device=decoder.device)
    x_KSD = last_KSD
    for index, token in enumerate(label):
        total_KS += _token_log_probs(decoder, x_KSD, token)
        if index + 1 < len(label):
            tokens_KS = torch.full(shape_KS, token, dtype=torch.int64, device=decoder.device)
            positions_KS = (lengths_S + index).expand(shape_KS)
            x_KSD = decoder.step(tokens_KS, positions_KS, cache, rotation)
    return total_KS


def _token_log_probs(decoder: SlotDecoder, x_KSD: Tensor, token: int) -> Tensor:
    """Log-probability (K, S) of one token; the head sees some rows at a time."""
    log_probs = []
    for x_ND in torch.split(x_KSD.flatten(0, 1), CHUNK_LABELS):
        logits_NV = decoder.logits(x_ND).float()
        log_probs.append(logits_NV[:, token].double() - logits_NV.logsumexp(dim=1).double())
    return torch.cat(log_probs).view(x_KSD.shape[:2])
