"""Cross-entropy over labelled positions, without ever holding all logits.

Shapes: N labelled positions of all slots, D features, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor

from trainables.data.tokens import IGNORED

CHUNK_LABELS = 2048
"""Positions whose logits are held together: 2048 * 151936 float32 logits are 1.2 GiB."""


def label_losses(hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor) -> Tensor:
    """Negative log-likelihood of each target, and 0 where it is IGNORED."""
    losses_N: Tensor = _LabelLosses.apply(  # type: ignore[no-untyped-call]
        hidden_ND, head_VD, targets_N
    )
    return losses_N


class _LabelLosses(torch.autograd.Function):
    """Makes the gradient of a chunk beside its loss, while its logits are there.

    The head is frozen, so the gradient of the hidden states is all that is kept.
    """

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor) -> Tensor:
        chunks = (torch.split(tensor, CHUNK_LABELS) for tensor in (hidden_ND, targets_N))
        made = [_chunk(hidden, head_VD, targets) for hidden, targets in zip(*chunks, strict=True)]
        ctx.save_for_backward(torch.cat([grad for _, grad in made]))
        return torch.cat([losses for losses, _ in made])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad_ND,) = ctx.saved_tensors
        return (grad_ND * grads[0][:, None]).to(grad_ND.dtype), None, None


def _chunk(hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each target, and its gradient in the hidden states."""
    is_label_N = targets_N != IGNORED
    index_N1 = targets_N.clamp(min=0)[:, None]
    logits_NV = hidden_ND @ head_VD.T
    exact = torch.promote_types(logits_NV.dtype, torch.float32)
    log_probs_NV = logits_NV.to(exact).log_softmax(dim=-1)
    losses_N = -log_probs_NV.gather(1, index_N1)[:, 0]
    minus_one = torch.full_like(index_N1, -1, dtype=exact)
    slope_NV = log_probs_NV.exp_().scatter_add_(1, index_N1, minus_one)
    grad_ND = slope_NV.to(hidden_ND.dtype) @ head_VD
    return (
        torch.where(is_label_N, losses_N, 0.0),
        torch.where(is_label_N[:, None], grad_ND, 0.0),
    )
