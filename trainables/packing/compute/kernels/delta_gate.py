"""The gated norm behind a delta rule as Triton kernels: each number is read and written once.

Shapes: N tokens, H value heads, E features of one, F = H * E.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

FEATURES, NUM_WARPS = 2048, 8
"""What a program takes, in whole heads. Eight numbers a thread, 16 bytes of bfloat16, are one
load."""


def gate_norm(mixed_NHE: Tensor, z_NF: Tensor, norm_E: Tensor, eps: float) -> Tensor:
    """elementwise.gate_norm as one kernel, rounded where it rounds; a gradient is rounded once.

    The weight is the base's, frozen: it gets no gradient.

    Args:
        z_NF: may be part of wider rows.
    """
    inputs = (mixed_NHE, z_NF, norm_E, eps)
    gated_NF: Tensor = _GateNorm.apply(*inputs)  # type: ignore[no-untyped-call]
    return gated_NF


class _GateNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mixed_NHE: Tensor, z_NF: Tensor, norm_E: Tensor, eps: float) -> Tensor:
        mixed_NHE = mixed_NHE.contiguous()
        gated_NF = torch.empty_like(z_NF, memory_format=torch.contiguous_format)
        grid, sizes = _sizes(mixed_NHE)
        inputs = (mixed_NHE, z_NF, z_NF.stride(0), norm_E, eps)
        _forward[grid](gated_NF, *inputs, *sizes, num_warps=NUM_WARPS)
        ctx.save_for_backward(mixed_NHE, z_NF, norm_E)
        ctx.eps = eps
        return gated_NF

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        mixed_NHE, z_NF, norm_E = ctx.saved_tensors
        dmixed_NHE = torch.empty_like(mixed_NHE)
        dz_NF = torch.empty_like(z_NF, memory_format=torch.contiguous_format)
        grid, sizes = _sizes(mixed_NHE)
        inputs = (grads[0].contiguous(), mixed_NHE, z_NF, z_NF.stride(0), norm_E, ctx.eps)
        _backward[grid](dmixed_NHE, dz_NF, *inputs, *sizes, num_warps=NUM_WARPS)
        return dmixed_NHE, dz_NF, None, None


def _sizes(mixed_NHE: Tensor) -> tuple[tuple[int], tuple[int, ...]]:
    """The grid, and the kernels' last arguments."""
    num_tokens, num_heads, num_features = mixed_NHE.shape
    block: int = triton.next_power_of_2(num_features)
    rows, num_rows = max(1, FEATURES // block), num_tokens * num_heads
    return (triton.cdiv(num_rows, rows),), (num_rows, num_heads, num_features, rows, block)


@triton.jit
def _forward(
    gated_ptr,
    mixed_ptr,
    z_ptr,
    z_stride,
    norm_ptr,
    eps,
    num_rows,
    num_heads,
    num_features: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Some heads: norm * mixed / rms(mixed) * silu(z)."""
    at, z_at, e, mask = _rows(num_rows, num_heads, num_features, z_stride, ROWS, BLOCK)
    mixed = tl.load(mixed_ptr + at, mask=mask, other=0.0)
    z = tl.load(z_ptr + z_at, mask=mask, other=0.0).to(tl.float32)
    norm = tl.load(norm_ptr + e, mask=e < num_features, other=0.0)
    normed = _normed(mixed, norm, _scale(mixed.to(tl.float32), num_features, eps))
    gated = normed * z * tl.sigmoid(z)
    tl.store(gated_ptr + at, gated.to(gated_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _backward(
    dmixed_ptr,
    dz_ptr,
    grad_ptr,
    mixed_ptr,
    z_ptr,
    z_stride,
    norm_ptr,
    eps,
    num_rows,
    num_heads,
    num_features: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Some heads: the gradients of mixed and z."""
    at, z_at, e, mask = _rows(num_rows, num_heads, num_features, z_stride, ROWS, BLOCK)
    mixed = tl.load(mixed_ptr + at, mask=mask, other=0.0)
    z = tl.load(z_ptr + z_at, mask=mask, other=0.0).to(tl.float32)
    norm = tl.load(norm_ptr + e, mask=e < num_features, other=0.0)
    grad = tl.load(grad_ptr + at, mask=mask, other=0.0).to(tl.float32)
    exact = mixed.to(tl.float32)
    scale = _scale(exact, num_features, eps)
    sigmoid = tl.sigmoid(z)
    # silu'(z) = sigmoid(z) * (1 + z * (1 - sigmoid(z))).
    dz = grad * _normed(mixed, norm, scale) * sigmoid * (1.0 + z * (1.0 - sigmoid))
    tl.store(dz_ptr + at, dz.to(dz_ptr.dtype.element_ty), mask=mask)
    # mixed * scale, where scale depends on mixed: as in add_norm._backward, head by head.
    grad *= z * sigmoid * norm.to(tl.float32)
    shared = tl.sum(grad * exact, axis=1)[:, None] * scale * scale / num_features
    dmixed = scale * (grad - exact * shared)
    tl.store(dmixed_ptr + at, dmixed.to(dmixed_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _rows(
    num_rows,
    num_heads,
    num_features: tl.constexpr,
    z_stride,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Where some rows lie, each a head of a token, and their z; their features, and which there
    are."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    e = tl.arange(0, BLOCK)[None, :]
    at = row.to(tl.int64) * num_features + e
    z_at = (row // num_heads).to(tl.int64) * z_stride + row % num_heads * num_features + e
    return at, z_at, e, (row < num_rows) & (e < num_features)


@triton.jit
def _scale(exact, num_features: tl.constexpr, eps):
    """One over the root mean square of each head."""
    return tl.rsqrt(tl.sum(exact * exact, axis=1)[:, None] / num_features + eps)


@triton.jit
def _normed(mixed, norm, scale):
    """In float32; rounded before the weight, and after it if both are of one type."""
    normed = (mixed.to(tl.float32) * scale).to(mixed.dtype).to(tl.float32) * norm.to(tl.float32)
    if norm.dtype == mixed.dtype:
        normed = normed.to(mixed.dtype).to(tl.float32)
    return normed
