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
Triton kernels; elsewhere they pad the slots to equal lengths and multiply.

Shapes: K slots, N tokens of a pass, T tokens of the largest slot, F features, M modules that share
an input, R rank, B blocks.
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
    inner = []
    for module, weights_KRF in enumerate(weights_KMRF.unbind(1)):
        x_KTF = _pad(_drop(x_NF, dropout, keys_M2, module), segments)
        made_NR = _unpad(torch.bmm(x_KTF, weights_KRF.to(x_NF.dtype).mT), segments)
        inner.append(_scale(made_NR, scaling_K, segments))
    return torch.stack(inner)


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
        inner_KTR = _pad(inner_MNR[module], segments)
        made_NF = _unpad(torch.bmm(inner_KTR, weights_KRF.to(inner_KTR.dtype)), segments)
        y_NF += _drop(_scale(made_NF, scaling_K, segments), dropout, keys_M2, module)


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
        inner_KTR = _pad(inner_MNR[module], segments)
        x_KTF = _pad(_drop(x_NF, dropout, keys_M2, module), segments)
        made_KRF = torch.bmm(inner_KTR.mT, x_KTF).to(grads_KRF.dtype)
        grads_KRF += made_KRF if scaling_K is None else made_KRF * scaling_K[:, None, None]


def _drop(x_NF: Tensor, dropout: Dropout | None, keys_M2: Tensor | None, module: int) -> Tensor:
    return x_NF if dropout is None or keys_M2 is None else drop(x_NF, dropout, keys_M2[module])


def _scale(x_NF: Tensor, scaling_K: Tensor | None, segments: Segments) -> Tensor:
    if scaling_K is None:
        return x_NF
    return (x_NF * scaling_K[segments.slots_N][:, None]).to(x_NF.dtype)


def _pad(x_NF: Tensor, segments: Segments) -> Tensor:
    """(K, T, F), with zeros behind each slot's tokens."""
    # index[k, t] is the t-th token of slot k, were it as long as the longest. What lies behind its
    # end belongs to its neighbour, or to nobody, and is replaced by zeros.
    first_K1, end_K1 = torch.split(segments.bounds_K2.long(), 1, dim=1)
    index_KT = first_K1 + torch.arange(segments.longest, device=x_NF.device)
    is_real_KT = index_KT < end_K1
    return torch.where(is_real_KT[:, :, None], x_NF[index_KT.clamp(max=len(x_NF) - 1)], 0.0)


def _unpad(x_KTF: Tensor, segments: Segments) -> Tensor:
    """(N, F) again."""
    slots_N = segments.slots_N
    offsets_N = torch.arange(len(slots_N), device=slots_N.device) - segments.bounds_K2[slots_N, 0]
    return x_KTF[slots_N, offsets_N]
