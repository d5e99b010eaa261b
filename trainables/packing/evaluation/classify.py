"""The likelihood of every label for many slots: prompts are read once, then trees of labels.

Shapes: K slots, S rows of a slot, B = K * S, T tokens of a prompt, N nodes of a tree, L labels, D
features.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from trainables.data.tokens import Example
from trainables.metrics.label_tree import MAX_NODES, LabelTree, grow_trees
from trainables.packing.compute.pass_shapes import PROMPT_TOKENS, TOKENS_MULTIPLE, round_up
from trainables.packing.evaluation.generate import batches, pad_right
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
        labels: each with its end of turn.
        max_tokens_per_batch: positions of the cache, over all slots and rows.
    """
    log_probs_KSL = torch.empty(decoder.num_slots, len(prompts), len(labels), dtype=torch.float64)
    widths = [round_up(len(prompt), TOKENS_MULTIPLE) for prompt in prompts]
    # Where the cache holds little more than the longest prompt, the labels are read in more passes.
    room = max_tokens_per_batch // decoder.num_slots // TOKENS_MULTIPLE * TOKENS_MULTIPLE
    max_nodes = min(max(room - max(widths), TOKENS_MULTIPLE), MAX_NODES)
    trees = grow_trees(labels, decoder.device, max_nodes)
    most_nodes = max(len(tree.tokens_N) for tree in trees)
    lengths = [width + most_nodes for width in widths]
    limit = min(max_tokens_per_batch, PROMPT_TOKENS)
    for indices in batches(lengths, decoder.num_slots, limit):
        log_probs = _batch(decoder, [prompts[i] for i in indices], trees, most_nodes)
        for tree, of_tree in zip(trees, log_probs, strict=True):
            rows_S1, labels_L = torch.tensor(indices)[:, None], torch.tensor(tree.labels)
            log_probs_KSL[:, rows_S1, labels_L] = of_tree.cpu()
    return log_probs_KSL


def _batch(
    decoder: SlotDecoder, prompts: Sequence[list[int]], trees: Sequence[LabelTree], most_nodes: int
) -> list[Tensor]:
    """Log-probabilities (K, S, L) of each tree's labels for rows that are read together."""
    ids_ST, lengths_S = pad_right([Example(prompt, []) for prompt in prompts], decoder.device)
    num_rows, width = ids_ST.shape
    cache = decoder.new_cache(num_rows, round_up(width + most_nodes, TOKENS_MULTIPLE))
    last_S = lengths_S - 1 + torch.arange(num_rows, device=decoder.device) * width
    last_KSD = decoder.read(ids_ST, cache)[:, last_S]
    log_probs = []
    for tree in trees:  # the nodes' keys stand where those of the tree before stood
        x = last_KSD[:, :, None]
        if len(tree.tokens_N):
            x = torch.cat((x, decoder.read_tree(tree, lengths_S, cache, width)), dim=2)
        log_probs_BL = tree.log_probs(x.flatten(0, 1), decoder.logits)
        log_probs.append(log_probs_BL.view(*last_KSD.shape[:2], -1))
    return log_probs
