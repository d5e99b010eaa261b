"""The likelihood of every label for many slots: prompts are read once, labels follow one by one.

Shapes: K slots, S rows of a slot, N tokens of a slot, L labels, D features, V vocabulary.
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
from trainables.packing.evaluation.slot_decoder import KeysValues, SlotDecoder


@torch.no_grad()
def label_log_probs(
    decoder: SlotDecoder,
    prompts: Sequence[list[int]],
    labels: Sequence[list[int]],
    max_tokens_per_batch: int,
) -> Tensor:
    """float64 log-probability (K, rows, L) of each label after each prompt.

    Args:
        labels: each with its end of turn.
        max_tokens_per_batch: positions of the cache, over all slots and rows.
    """
    log_probs_KSL = torch.empty(decoder.num_slots, len(prompts), len(labels), dtype=torch.float64)
    longest = max(map(len, labels))
    lengths = [len(prompt) + longest for prompt in prompts]
    limit = min(max_tokens_per_batch, PROMPT_TOKENS)
    for indices in batches(lengths, decoder.num_slots, limit):
        log_probs_KSL[:, indices] = _batch(decoder, [prompts[i] for i in indices], labels).cpu()
    return log_probs_KSL


def _batch(
    decoder: SlotDecoder, prompts: Sequence[list[int]], labels: Sequence[list[int]]
) -> Tensor:
    """Log-probabilities (K, S, L) for rows that are read together."""
    ids_ST, lengths_S = pad_right([Example(prompt, []) for prompt in prompts], decoder.device)
    num_rows, width = ids_ST.shape
    num_positions = round_up(width + max(map(len, labels)), TOKENS_MULTIPLE)
    cache = decoder.new_cache(num_rows, num_positions)
    last_S = lengths_S - 1 + torch.arange(num_rows, device=decoder.device) * width
    last_KSD = decoder.read(ids_ST, cache)[:, last_S]
    rotation = decoder.rotation(num_positions)
    log_probs = [_label(decoder, last_KSD, lengths_S, cache, rotation, label) for label in labels]
    return torch.stack(log_probs, dim=2)


def _label(
    decoder: SlotDecoder,
    x_KSD: Tensor,
    lengths_S: Tensor,
    cache: Sequence[KeysValues],
    rotation: tuple[Tensor, Tensor],
    label: list[int],
) -> Tensor:
    """Log-probability (K, S) of one label; its keys stand where those of the one before stood.

    A token sees the positions up to its own, so what is left of a longer label is never seen.
    """
    total_KS = torch.zeros(x_KSD.shape[:2], dtype=torch.float64, device=decoder.device)
    for index, token in enumerate(label):
        if index > 0:
            tokens_KS = torch.full_like(total_KS, label[index - 1], dtype=torch.int64)
            positions_KS = (lengths_S + index - 1).expand(total_KS.shape)
            x_KSD = decoder.step(tokens_KS, positions_KS, cache, rotation)
        log_probs = []
        for x_ND in torch.split(x_KSD.flatten(0, 1), CHUNK_LABELS):  # the head sees some rows
            logits_NV = decoder.logits(x_ND).float()
            log_probs.append(logits_NV[:, token].double() - logits_NV.logsumexp(dim=1).double())
        total_KS += torch.cat(log_probs).view_as(total_KS)
    return total_KS
