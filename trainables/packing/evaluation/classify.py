"""The likelihood of every label for many slots: prompts are read once, then trees of labels.

Shapes: K slots, S rows of a slot, B = K * S, T tokens of a prompt, N nodes of a tree, L labels, D
features.
"""

from collections.abc import Callable, Sequence
from operator import itemgetter

import torch
from torch import Tensor

from trainables.data.tokens import Example
from trainables.metrics.label_tree import LabelTree, grow_trees
from trainables.packing.compute.pass_shapes import PROMPT_TOKENS
from trainables.packing.evaluation.generate import group_rows, pad_right
from trainables.packing.evaluation.slot_decoder import SlotDecoder, map_state

LEAST_NODES, MAX_NODES = 64, 1024
"""Nodes of a tree behind a prompt; the kernel's mask is as wide as they, and one for all rows."""
MAX_RECURRENT_NODES = 128
"""Where layers are recurrent: what a node costs grows with the nodes of its tree, and at so many it
is twice the reading of the prompt's state, of 128 x 128 numbers a head."""
HEAD_BYTES = 1 << 14
"""Bytes a word of the logits that are held together: 8192 nodes in bf16. The predicted memory has
more for those of CHUNK_LABELS."""


@torch.no_grad()
def compute_label_log_probs(
    decoder: SlotDecoder,
    prompts: Sequence[list[int]],
    labels: Sequence[list[int]],
    max_tokens_per_batch: int,
    before_batch: Callable[[], None] = lambda: None,
) -> Tensor:
    """float64 log-probability (K, rows, L) of each label after each prompt.

    Args:
        labels: each with its end of turn.
        max_tokens_per_batch: positions of the cache, over all slots and rows, and what the rows'
            states are worth.
        before_batch: called before each; what it raises ends the work.
    """
    limit = min(max_tokens_per_batch, PROMPT_TOKENS)
    most = MAX_RECURRENT_NODES if decoder.is_recurrent else MAX_NODES
    max_nodes = min(max(limit // decoder.num_slots, LEAST_NODES), most)
    trees = grow_trees(labels, decoder.device, max_nodes)
    rows, log_probs = [], []
    sizes = (max_tokens_per_batch, decoder.model.state_positions, PROMPT_TOKENS)
    for indices in group_rows(list(map(len, prompts)), decoder.num_slots, *sizes):
        before_batch()
        rows += indices
        log_probs.append(_compute_batch(decoder, [prompts[i] for i in indices], trees, limit))
    columns_L = torch.tensor([label for tree in trees for label in tree.labels])
    log_probs_KSL = torch.empty(decoder.num_slots, len(prompts), len(labels), dtype=torch.float64)
    # Only here the host waits for the device.
    log_probs_KSL[:, torch.tensor(rows)[:, None], columns_L] = torch.cat(log_probs, dim=1).cpu()
    return log_probs_KSL


def _compute_batch(
    decoder: SlotDecoder, prompts: Sequence[list[int]], trees: Sequence[LabelTree], limit: int
) -> Tensor:
    """Log-probabilities (K, S, L) of the trees' labels, in their order, for prompts that are read
    together; of nodes as many as the limit allows, and of one row a slot at least."""
    examples = [Example.from_ids(prompt, []) for prompt in prompts]
    ids_ST, lengths_S = pad_right(examples, decoder.device)
    num_rows, width = ids_ST.shape
    cache = decoder.make_cache(num_rows, width)
    last_S = lengths_S - 1 + torch.arange(num_rows, device=decoder.device) * width
    last_KSD = decoder.prefill(ids_ST, lengths_S, cache)[:, last_S]
    by_tree = []
    for tree in trees:
        share = max(1, limit // (decoder.num_slots * (1 + len(tree.tokens_N))))
        parts = []
        for first in range(0, num_rows, share):
            some = slice(first, first + share)
            x = last_KSD[:, some, None]
            if len(tree.tokens_N):
                cached = [map_state(state, itemgetter((slice(None), some))) for state in cache]
                read = decoder.read_tree(tree, lengths_S[some], cached)
                x = torch.cat((x, read), dim=2)
            log_probs_BL = tree.compute_log_probs(
                x.flatten(0, 1), decoder.logits, decoder.logsumexp, HEAD_BYTES // x.itemsize
            )
            parts.append(log_probs_BL.view(*x.shape[:2], -1))
        by_tree.append(torch.cat(parts, dim=1))
    return torch.cat(by_tree, dim=2)
