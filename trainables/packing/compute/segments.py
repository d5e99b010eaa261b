"""Products of each slot's tokens with the slot's own matrices, without a token of padding.

All slots' tokens lie end to end. The three products below are all that LoRA needs (names as in
Punica, arXiv 2310.18547, and vLLM). For y = W x + scaling * B A drop(x), with the gradient g of y:

    forward     shrink   inner = A drop(x)                    (N, F) to (N, R)
                expand   y = scaling * B inner                (N, R) to (N, F)
    backward    shrink   g_inner = scaling * B^T g            (N, F) to (N, R)
                weight   grad_B += scaling * g inner^T        summed over each slot's tokens
                weight   grad_A += g_inner drop(x)^T
                expand   grad_x = drop(A^T g_inner)           the same mask as forward

Dropout is part of the products, so that no dropped copy of an input is ever kept. On a GPU they are
Triton kernels; elsewhere each slot's tokens are multiplied in turn.

Shapes: K slots, N tokens of a pass, F and G features, M modules that share an input, R rank, B
blocks.
"""

import sys
from typing import Any

import torch
from torch import Tensor

from trainables.packing.compute.kernels.inputs import Dropout, Segments
from trainables.packing.compute.masks import drop


def products_for(x: Tensor) -> Any:
    """The module with the three products for x's device: Triton's kernels, or this one."""
    if not x.is_cuda:
        return sys.modules[__name__]
    from trainables.packing.compute.kernels import segment_products  # a CPU needs no Triton

    return segment_products


def lora_shrink(
    x_NF: Tensor,
    weights_KMRF: Tensor,
    segments: Segments,
    scaling_K: Tensor | None = None,
    dropout: Dropout | None = None,
    keys_M2: Tensor | None = None,
) -> Tensor:
    """scaling * (drop(x) times each of the slot's matrices, transposed): (M, N, R)."""
    return torch.stack(
        [
            _multiply(_drop(x_NF, dropout, keys_M2, module), weights_KRF.mT, segments, scaling_K)
            for module, weights_KRF in enumerate(weights_KMRF.unbind(1))
        ]
    )


def lora_expand(
    y_NF: Tensor,
    inner_MNR: Tensor,
    weights_KMRF: Tensor,
    segments: Segments,
    scaling_K: Tensor | None = None,
    dropout: Dropout | None = None,
    keys_M2: Tensor | None = None,
) -> None:
    """Write drop(scaling * (inner times the slot's matrix)), summed over modules, to y.

    Tokens that belong to no slot get zeros.
    """
    y_NF.zero_()
    for module, weights_KRF in enumerate(weights_KMRF.unbind(1)):
        made_NF = _multiply(inner_MNR[module], weights_KRF, segments, scaling_K)
        y_NF += _drop(made_NF, dropout, keys_M2, module)


def lora_weight_grad_(
    grads_KMRF: Tensor,
    inner_MNR: Tensor,
    x_NF: Tensor,
    segments: Segments,
    scaling_K: Tensor | None = None,
    dropout: Dropout | None = None,
    keys_M2: Tensor | None = None,
) -> None:
    """Add scaling * (inner, transposed, times drop(x)), summed over the slot's tokens, in place."""
    for module, grads_KRF in enumerate(grads_KMRF.unbind(1)):
        kept_NF = _drop(x_NF, dropout, keys_M2, module)
        for slot, tokens in _tokens_of(segments):
            made_RF = (inner_MNR[module, tokens].mT @ kept_NF[tokens]).to(grads_KRF.dtype)
            grads_KRF[slot] += made_RF if scaling_K is None else made_RF * scaling_K[slot]


def _drop(x_NF: Tensor, dropout: Dropout | None, keys_M2: Tensor | None, module: int) -> Tensor:
    return x_NF if dropout is None or keys_M2 is None else drop(x_NF, dropout, keys_M2[module])


def _multiply(
    x_NF: Tensor, weights_KFG: Tensor, segments: Segments, scaling_K: Tensor | None
) -> Tensor:
    """scaling * (each slot's tokens times its matrix): (N, G)."""
    made_NG = x_NF.new_zeros(len(x_NF), weights_KFG.shape[2])
    for slot, tokens in _tokens_of(segments):
        made = x_NF[tokens] @ weights_KFG[slot].to(x_NF.dtype)
        made_NG[tokens] = made if scaling_K is None else made * scaling_K[slot]
    return made_NG


def _tokens_of(segments: Segments) -> list[tuple[int, slice]]:
    """The slots that have tokens in this pass, and their tokens."""
    bounds = enumerate(segments.bounds_K2.tolist())
    return [(slot, slice(first, end)) for slot, (first, end) in bounds if first < end]
