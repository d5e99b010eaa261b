"""What lies between a decoder's products: norms, rotary positions, the gate. Fused or plain.

The products, the attention and LoRA have kernels of their own and stay outside.

Shapes: N tokens (or rows of tokens), D features, O outputs of a projection, H query heads, C
features of a head, R of them that are turned, E features of all heads, F features between gate and
down.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import silu

from trainables.packing.compute.kernels.inputs import HeadLayout


class Norms(NamedTuple):
    """Weights of the norms over each head, as rms_norm takes them."""

    query_C: Tensor
    key_C: Tensor


def add_norm(
    x_ND: Tensor, y_ND: Tensor | None, weight_D: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """x + y, and its norm; y is None for nothing."""
    total_ND = x_ND if y_ND is None else x_ND + y_ND
    return total_ND, rms_norm(total_ND, weight_D, eps)


def heads(
    projected_NO: Tensor,
    norms: Norms | None,
    cos_NR: Tensor,
    sin_NR: Tensor,
    layout: HeadLayout,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Queries and keys, normed and turned to their positions, values, and gates if it has them."""
    q, k, v, gate = layout.split(projected_NO)
    if norms is not None:
        q, k = rms_norm(q, norms.query_C, eps), rms_norm(k, norms.key_C, eps)
    cos_N1R, sin_N1R = cos_NR[:, None], sin_NR[:, None]
    return apply_rotary(q, cos_N1R, sin_N1R), apply_rotary(k, cos_N1R, sin_N1R), v, gate


def gate_heads(mixed_NE: Tensor, gate_NHC: Tensor) -> Tensor:
    """What all heads read, times the sigmoid of their gates."""
    return mixed_NE * gate_NHC.flatten(1).sigmoid()


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) * up, of (N, 2 F)."""
    gate_NF, up_NF = gate_up.chunk(2, dim=1)
    return silu(gate_NF) * up_NF


def gate_norm(mixed: Tensor, z: Tensor, norm_E: Tensor, eps: float) -> Tensor:
    """The norm of each head (..., H, E), times silu(z), as (..., H * E).

    Rounded where transformers' Qwen3_5RMSNormGated rounds.
    """
    exact = torch.promote_types(mixed.dtype, torch.float32)
    heads = mixed.to(exact)
    normed = heads * torch.rsqrt(heads.square().mean(dim=-1, keepdim=True) + eps)
    gate = silu(z.reshape(heads.shape).to(exact))
    return (norm_E * normed.to(mixed.dtype) * gate).to(mixed.dtype).flatten(-2)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x over its root mean square, at least in float32, times the weight.

    It is rounded to the weight's type before the product, and to x's after it: the norms of Qwen3
    have weights of x's type, the zero-centred ones of Qwen3.5 (one plus what is stored) of float32.
    """
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    normed = exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + eps)
    return (weight * normed.to(weight.dtype)).to(x.dtype)


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions (arXiv 2104.09864), with the halves of what is turned as pairs: a head's
    first features, as many as there are angles."""
    x, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    half = x.shape[-1] // 2
    turned = x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin
    return torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned
