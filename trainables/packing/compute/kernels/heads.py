"""Norm and rotation of query and key heads as Triton kernels: each number is read and written once.

A compiler makes several kernels of the gradient, at twice the cost on an H200.

Shapes: N tokens, E features of all heads, H heads of one kind, C features of a head.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


def heads(
    qkv_NE: Tensor,
    norms: tuple[Tensor, Tensor] | None,
    cos_NC: Tensor,
    sin_NC: Tensor,
    sizes: tuple[int, int, int],
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """elementwise.heads as one kernel a kind of head, rounded once."""
    outputs: tuple[Tensor, Tensor, Tensor]
    outputs = _Heads.apply(qkv_NE, cos_NC, sin_NC, norms, sizes, eps)  # type: ignore[no-untyped-call]
    return outputs


class _Heads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv_NE: Tensor, cos_NC: Tensor, sin_NC: Tensor, *others: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        norms, sizes, eps = ctx.others = others
        *parts, v_NHC = _split(qkv_NE, sizes)
        rotated = []
        for x_NHC, weight_C in zip(parts, norms or (None, None), strict=True):
            y_NHC = torch.empty_like(x_NHC, memory_format=torch.contiguous_format)
            _forward[(len(qkv_NE),)](y_NHC, *_args(x_NHC, weight_C, cos_NC, sin_NC, eps))
            rotated.append(y_NHC)
        ctx.save_for_backward(qkv_NE, cos_NC, sin_NC)
        return rotated[0], rotated[1], v_NHC

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        qkv_NE, cos_NC, sin_NC = ctx.saved_tensors
        norms, sizes, eps = ctx.others
        grad_NE = torch.empty_like(qkv_NE)
        into = _split(grad_NE, sizes)
        parts = _split(qkv_NE, sizes)
        for index, weight_C in enumerate(norms or (None, None)):
            dx_NHC, args = into[index], _args(parts[index], weight_C, cos_NC, sin_NC, eps)
            grad_NHC = grads[index].contiguous()
            _backward[(len(qkv_NE),)](dx_NHC, dx_NHC.stride(0), grad_NHC, *args)
        into[2].copy_(grads[2])
        return grad_NE, None, None, None, None, None


class _Angles(NamedTuple):
    cos: Tensor
    sin: Tensor
    stride: int
    """From one token to the next."""


class _Sizes(NamedTuple):
    num_heads: int
    half: int
    """Half the features of a head."""
    heads: tl.constexpr
    """As many as are loaded, some of them masked; so is features, of a half."""
    features: tl.constexpr


def _split(x_NE: Tensor, sizes: tuple[int, int, int]) -> list[Tensor]:
    """Views of queries, keys and values, each (N, H, C)."""
    q_size, kv_size, head_dim = sizes
    parts = torch.split(x_NE, [q_size, kv_size, kv_size], dim=1)
    return [part.view(len(part), -1, head_dim) for part in parts]


def _args(
    x_NHC: Tensor, weight_C: Tensor | None, cos_NC: Tensor, sin_NC: Tensor, eps: float
) -> tuple[Any, ...]:
    _, num_heads, head_dim = x_NHC.shape
    loaded = (triton.next_power_of_2(size) for size in (num_heads, head_dim // 2))
    angles = _Angles(cos_NC, sin_NC, cos_NC.stride(0))
    sizes = _Sizes(num_heads, head_dim // 2, *map(tl.constexpr, loaded))
    return x_NHC, x_NHC.stride(0), weight_C, angles, eps, sizes


@triton.jit
def _forward(y_ptr, x_ptr, x_stride, weight_ptr, angles, eps, sizes):
    """All heads of one kind of one token.

    low and high are the halves of each head, which rotary position embedding turns as pairs (arXiv
    2104.09864, in the layout of transformers' rotate_half).
    """
    token = tl.program_id(0).to(tl.int64)
    half = sizes.half
    offset, mask = _head_offsets(sizes)
    # x is a view of the fused q, k, v: its tokens are x_stride apart.
    low, high = _load_halves(x_ptr + token * x_stride + offset, mask, half)
    if weight_ptr is not None:
        w_low, w_high = _load_vector(weight_ptr, sizes)
        scale = _scale(low, high, half, eps)
        low, high = low * scale * w_low, high * scale * w_high
    cos_low, cos_high = _load_vector(angles.cos + token * angles.stride, sizes)
    sin_low, sin_high = _load_vector(angles.sin + token * angles.stride, sizes)
    y = y_ptr + token * sizes.num_heads * 2 * half + offset
    # (low, high) * cos + (-high, low) * sin, one half after the other.
    _store_halves(y, low * cos_low - high * sin_low, high * cos_high + low * sin_high, mask, half)


@triton.jit
def _backward(dx_ptr, dx_stride, grad_ptr, x_ptr, x_stride, weight_ptr, angles, eps, sizes):
    """The gradient of one token's heads: turned back, then through the norm."""
    token = tl.program_id(0).to(tl.int64)
    half = sizes.half
    offset, mask = _head_offsets(sizes)
    g_low, g_high = _load_halves(grad_ptr + token * sizes.num_heads * 2 * half + offset, mask, half)
    cos_low, cos_high = _load_vector(angles.cos + token * angles.stride, sizes)
    sin_low, sin_high = _load_vector(angles.sin + token * angles.stride, sizes)
    # The transpose of the rotation above.
    d_low = g_low * cos_low + g_high * sin_high
    d_high = g_high * cos_high - g_low * sin_low
    if weight_ptr is not None:
        # x * scale * weight, where scale depends on x: as in add_norm._backward, head by head.
        low, high = _load_halves(x_ptr + token * x_stride + offset, mask, half)
        scale = _scale(low, high, half, eps)
        w_low, w_high = _load_vector(weight_ptr, sizes)
        d_low, d_high = d_low * w_low, d_high * w_high
        shared = tl.sum(d_low * low + d_high * high, axis=1)[:, None] * scale * scale / (2 * half)
        d_low, d_high = scale * (d_low - low * shared), scale * (d_high - high * shared)
    _store_halves(dx_ptr + token * dx_stride + offset, d_low, d_high, mask, half)


@triton.jit
def _head_offsets(sizes):
    """Where the first half of each head of a token lies."""
    head, c = tl.arange(0, sizes.heads), tl.arange(0, sizes.features)
    mask = (head < sizes.num_heads)[:, None] & (c < sizes.half)[None, :]
    return head[:, None] * (2 * sizes.half) + c[None, :], mask


@triton.jit
def _load_halves(ptr, mask, half):
    """Both halves of a head, in float32."""
    low = tl.load(ptr, mask=mask, other=0.0).to(tl.float32)
    high = tl.load(ptr + half, mask=mask, other=0.0).to(tl.float32)
    return low, high


@triton.jit
def _load_vector(ptr, sizes):
    """Both halves of one vector for all heads, in float32."""
    c = tl.arange(0, sizes.features)
    low, high = _load_halves(ptr + c, c < sizes.half, sizes.half)
    return low[None, :], high[None, :]


@triton.jit
def _store_halves(ptr, low, high, mask, half):
    kind = ptr.dtype.element_ty
    tl.store(ptr, low.to(kind), mask=mask)
    tl.store(ptr + half, high.to(kind), mask=mask)


@triton.jit
def _scale(low, high, half, eps):
    """One over the root mean square of each head."""
    squares = tl.sum(low * low + high * high, axis=1)[:, None]
    return tl.rsqrt(squares / (2 * half) + eps)
