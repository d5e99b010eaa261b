"""Norm and rotation of query and key heads as Triton kernels: each number is read and written once.

A compiler makes several kernels of the gradient, at twice the cost on an H200.

Shapes: N tokens, E features of all heads, H heads of one kind, C features of a head.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trainables.packing.compute.elementwise import Norms


def heads(
    qkv_NE: Tensor,
    norms: Norms | None,
    cos_NC: Tensor,
    sin_NC: Tensor,
    sizes: tuple[int, int, int],
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """elementwise.heads as one kernel a kind of head, rounded once."""
    outputs: tuple[Tensor, Tensor, Tensor] = _Heads.apply(  # type: ignore[no-untyped-call]
        qkv_NE, norms, cos_NC, sin_NC, sizes, eps
    )
    return outputs


class _Heads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        qkv_NE: Tensor,
        norms: Norms | None,
        cos_NC: Tensor,
        sin_NC: Tensor,
        sizes: tuple[int, int, int],
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        parts = _split(qkv_NE, sizes)
        rotated = []
        for x_NHC, weight_C in zip(parts, norms or (None, None), strict=False):
            y_NHC = torch.empty_like(x_NHC, memory_format=torch.contiguous_format)
            _forward[(len(qkv_NE),)](y_NHC, *_args(x_NHC, weight_C, cos_NC, sin_NC, eps))
            rotated.append(y_NHC)
        ctx.save_for_backward(qkv_NE, cos_NC, sin_NC)
        ctx.others = (norms, sizes, eps)
        return rotated[0], rotated[1], parts[2]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        qkv_NE, cos_NC, sin_NC = ctx.saved_tensors
        norms, sizes, eps = ctx.others
        grad_NE = torch.empty_like(qkv_NE)
        into = _split(grad_NE, sizes)
        parts = _split(qkv_NE, sizes)
        for index, weight_C in enumerate(norms or (None, None)):
            grad_NHC, dx_NHC = grads[index].contiguous(), into[index]
            _backward[(len(qkv_NE),)](
                dx_NHC,
                dx_NHC.stride(0),
                grad_NHC,
                *_args(parts[index], weight_C, cos_NC, sin_NC, eps),
            )
        into[2].copy_(grads[2])
        return grad_NE, None, None, None, None, None


def _split(x_NE: Tensor, sizes: tuple[int, int, int]) -> list[Tensor]:
    """Views of queries, keys and values, each (N, H, C)."""
    q_size, kv_size, head_dim = sizes
    parts = torch.split(x_NE, [q_size, kv_size, kv_size], dim=1)
    return [part.view(len(part), -1, head_dim) for part in parts]


def _args(
    x_NHC: Tensor, weight_C: Tensor | None, cos_NC: Tensor, sin_NC: Tensor, eps: float
) -> tuple[Any, ...]:
    _, num_heads, head_dim = x_NHC.shape
    return (
        x_NHC,
        x_NHC.stride(0),
        x_NHC if weight_C is None else weight_C,
        cos_NC,
        sin_NC,
        cos_NC.stride(0),
        eps,
        num_heads,
        head_dim // 2,
        weight_C is not None,
        triton.next_power_of_2(num_heads),
        triton.next_power_of_2(head_dim // 2),
    )


@triton.jit
def _forward(
    y_ptr,
    x_ptr,
    x_stride,
    weight_ptr,
    cos_ptr,
    sin_ptr,
    angle_stride,
    eps,
    num_heads,
    half,
    HAS_NORM: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """All heads of one kind of one token.

    low and high are the halves of each head, which rotary position embedding turns as pairs (arXiv
    2104.09864, in the layout of transformers' rotate_half).
    """
    token = tl.program_id(0).to(tl.int64)
    offset, mask, c, is_feature = _head_offsets(num_heads, half, BLOCK_H, BLOCK_C)
    # x is a view of the fused q, k, v: its tokens are x_stride apart.
    low, high = _load_halves(x_ptr + token * x_stride + offset, mask, half)
    if HAS_NORM:
        scale = _scale(low, high, half, eps)
        w_low, w_high = _load_halves(weight_ptr + c, is_feature, half)
        low, high = low * scale * w_low[None, :], high * scale * w_high[None, :]
    cos_low, cos_high = _load_halves(cos_ptr + token * angle_stride + c, is_feature, half)
    sin_low, sin_high = _load_halves(sin_ptr + token * angle_stride + c, is_feature, half)
    kind = y_ptr.dtype.element_ty
    y = y_ptr + token * num_heads * 2 * half + offset
    # (low, high) * cos + (-high, low) * sin, one half after the other.
    turned = low * cos_low[None, :] - high * sin_low[None, :]
    tl.store(y, turned.to(kind), mask=mask)
    turned = high * cos_high[None, :] + low * sin_high[None, :]
    tl.store(y + half, turned.to(kind), mask=mask)


@triton.jit
def _backward(
    dx_ptr,
    dx_stride,
    grad_ptr,
    x_ptr,
    x_stride,
    weight_ptr,
    cos_ptr,
    sin_ptr,
    angle_stride,
    eps,
    num_heads,
    half,
    HAS_NORM: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The gradient of one token's heads: turned back, then through the norm."""
    token = tl.program_id(0).to(tl.int64)
    offset, mask, c, is_feature = _head_offsets(num_heads, half, BLOCK_H, BLOCK_C)
    g_low, g_high = _load_halves(grad_ptr + token * num_heads * 2 * half + offset, mask, half)
    cos_low, cos_high = _load_halves(cos_ptr + token * angle_stride + c, is_feature, half)
    sin_low, sin_high = _load_halves(sin_ptr + token * angle_stride + c, is_feature, half)
    # The transpose of the rotation above.
    d_low = g_low * cos_low[None, :] + g_high * sin_high[None, :]
    d_high = g_high * cos_high[None, :] - g_low * sin_low[None, :]
    if HAS_NORM:
        # x * scale * weight, where scale depends on x: as in add_norm._backward, head by head.
        low, high = _load_halves(x_ptr + token * x_stride + offset, mask, half)
        scale = _scale(low, high, half, eps)
        w_low, w_high = _load_halves(weight_ptr + c, is_feature, half)
        d_low, d_high = d_low * w_low[None, :], d_high * w_high[None, :]
        shared = tl.sum(d_low * low + d_high * high, axis=1)[:, None] * scale * scale / (2 * half)
        d_low, d_high = scale * (d_low - low * shared), scale * (d_high - high * shared)
    kind = dx_ptr.dtype.element_ty
    dx = dx_ptr + token * dx_stride + offset
    tl.store(dx, d_low.to(kind), mask=mask)
    tl.store(dx + half, d_high.to(kind), mask=mask)


@triton.jit
def _head_offsets(num_heads, half, BLOCK_H: tl.constexpr, BLOCK_C: tl.constexpr):
    """Where the first half of each head of a token lies."""
    head = tl.arange(0, BLOCK_H)
    c = tl.arange(0, BLOCK_C)
    is_feature = c < half
    mask = (head < num_heads)[:, None] & is_feature[None, :]
    return head[:, None] * (2 * half) + c[None, :], mask, c, is_feature


@triton.jit
def _load_halves(ptr, mask, half):
    """Both halves of a head, in float32."""
    low = tl.load(ptr, mask=mask, other=0.0).to(tl.float32)
    high = tl.load(ptr + half, mask=mask, other=0.0).to(tl.float32)
    return low, high


@triton.jit
def _scale(low, high, half, eps):
    """One over the root mean square of each head."""
    squares = tl.sum(low * low + high * high, axis=1)[:, None]
    return tl.rsqrt(squares / (2 * half) + eps)
