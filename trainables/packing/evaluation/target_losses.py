"""Loss of true targets after prompts that have been read, for slots that share their rows.

Shapes: K slots, T tokens of a row, N tokens of a slot, L labels, D features, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from trainables.data.tokens import Example
from trainables.packing.compute.pass_shapes import CHUNK_LABELS
from trainables.packing.compute.transfer import copy_to_device
from trainables.packing.evaluation.slot_decoder import SlotDecoder


def summed_losses(
    decoder: SlotDecoder, x_KND: Tensor, examples: Sequence[Example], width: int
) -> Tensor:
    """Each slot's loss (K,), summed over the labels; the head sees some labels at a time.

    Args:
        decoder: what has read the rows.
        x_KND: what it gave.
        examples: the rows; none need have a target.
        width: T.
    """
    totals_K = torch.zeros(decoder.num_slots, dtype=torch.float64, device=decoder.device)
    firsts = [row * width + len(e.prompt_ids) - 1 for row, e in enumerate(examples)]
    index = [
        first + label
        for first, example in zip(firsts, examples, strict=True)
        for label in range(len(example.target_ids))
    ]
    if not index:
        return totals_K
    targets = [token for example in examples for token in example.target_ids]
    share = max(1, CHUNK_LABELS // decoder.num_slots)
    chunks = zip(
        torch.split(copy_to_device(torch.tensor(index), decoder.device), share),
        torch.split(copy_to_device(torch.tensor(targets), decoder.device), share),
        strict=True,
    )
    for at_L, targets_L in chunks:
        totals_K += _label_losses(decoder.logits(x_KND[:, at_L]), targets_L)
    return totals_K


def _label_losses(logits_KLV: Tensor, targets_L: Tensor) -> Tensor:
    """Each slot's loss (K,), summed over labels that all slots share."""
    targets_KL = targets_L.expand(logits_KLV.shape[:2])
    losses = cross_entropy(logits_KLV.flatten(0, 1).float(), targets_KL.flatten(), reduction="none")
    return losses.view_as(targets_KL).double().sum(dim=1)
