"""The gates of MLPs and of attention as Triton kernels: each number is read and written once.

A compiler lays the two halves of silu(gate) * up's gradient together by computing both for each, at
three times the cost on an H200.

Shapes: N tokens, F features between gate and down, H query heads, C features of one, E of all.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024
"""Features of one token that one program works on."""


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) * up, of (N, 2 F), rounded once."""
    activated: Tensor = _SwiGlu.apply(gate_up)  # type: ignore[no-untyped-call]
    return activated


class _SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        num_tokens, double = gate_up.shape
        activated_NF = gate_up.new_empty(num_tokens, double // 2)
        _forward[_grid(activated_NF)](gate_up, activated_NF, double // 2, BLOCK)
        ctx.save_for_backward(gate_up)
        return activated_NF

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        grad_NF = grads[0].contiguous()
        grad_gate_up = torch.empty_like(gate_up)
        _backward[_grid(grad_NF)](gate_up, grad_NF, grad_gate_up, grad_NF.shape[1], BLOCK)
        return grad_gate_up


def gate_heads(mixed_NE: Tensor, gate_NHC: Tensor) -> Tensor:
    """What all heads read, times the sigmoid of their gates, rounded once.

    Args:
        gate_NHC: may be part of a projection.
    """
    gated_NE: Tensor = _GateHeads.apply(mixed_NE, gate_NHC)  # type: ignore[no-untyped-call]
    return gated_NE


class _GateHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mixed_NE: Tensor, gate_NHC: Tensor) -> Tensor:
        mixed_NE = mixed_NE.contiguous()
        gated_NE = torch.empty_like(mixed_NE)
        _forward_heads[_grid(mixed_NE)](gated_NE, *_head_args(mixed_NE, gate_NHC))
        ctx.save_for_backward(mixed_NE, gate_NHC)
        return gated_NE

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        mixed_NE, gate_NHC = ctx.saved_tensors
        dmixed_NE = torch.empty_like(mixed_NE)
        dgate_NHC = torch.empty_like(gate_NHC, memory_format=torch.contiguous_format)
        outputs = (dmixed_NE, dgate_NHC, grads[0].contiguous())
        _backward_heads[_grid(mixed_NE)](*outputs, *_head_args(mixed_NE, gate_NHC))
        return dmixed_NE, dgate_NHC


def _head_args(mixed_NE: Tensor, gate_NHC: Tensor) -> tuple[Any, ...]:
    strides, head_dim = gate_NHC.stride()[:2], gate_NHC.shape[2]
    return mixed_NE, gate_NHC, *strides, mixed_NE.shape[1], head_dim, BLOCK


def _grid(x_NF: Tensor) -> tuple[int, int]:
    return x_NF.shape[0], triton.cdiv(x_NF.shape[1], BLOCK)


@triton.jit
def _forward(gate_up_ptr, out_ptr, num_features, BLOCK: tl.constexpr):
    """Part of one token; gate and up are the halves of its row."""
    row = tl.program_id(0).to(tl.int64)
    f = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = f < num_features
    gate_ptr = gate_up_ptr + row * 2 * num_features + f
    gate = tl.load(gate_ptr, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(gate_ptr + num_features, mask=mask, other=0.0).to(tl.float32)
    activated = gate * tl.sigmoid(gate) * up
    tl.store(out_ptr + row * num_features + f, activated.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _backward(gate_up_ptr, grad_ptr, out_ptr, num_features, BLOCK: tl.constexpr):
    """Part of one token: one program writes both halves, which share their inputs."""
    row = tl.program_id(0).to(tl.int64)
    f = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = f < num_features
    offset = row * 2 * num_features + f
    gate = tl.load(gate_up_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(gate_up_ptr + offset + num_features, mask=mask, other=0.0).to(tl.float32)
    grad = tl.load(grad_ptr + row * num_features + f, mask=mask, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(gate)
    # silu(g) = g * sigmoid(g); silu'(g) = sigmoid(g) * (1 + g * (1 - sigmoid(g))).
    grad_gate = grad * up * sigmoid * (1.0 + gate * (1.0 - sigmoid))
    grad_up = grad * gate * sigmoid
    kind = out_ptr.dtype.element_ty
    tl.store(out_ptr + offset, grad_gate.to(kind), mask=mask)
    tl.store(out_ptr + offset + num_features, grad_up.to(kind), mask=mask)


@triton.jit
def _forward_heads(
    gated_ptr,
    mixed_ptr,
    gate_ptr,
    token_stride,
    head_stride,
    num_features,
    head_dim: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Part of one token: mixed * sigmoid(gate)."""
    offset, gate_at, mask = _head_offsets(token_stride, head_stride, num_features, head_dim, BLOCK)
    mixed = tl.load(mixed_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    gate = tl.load(gate_ptr + gate_at, mask=mask, other=0.0).to(tl.float32)
    gated = mixed * tl.sigmoid(gate)
    tl.store(gated_ptr + offset, gated.to(gated_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _backward_heads(
    dmixed_ptr,
    dgate_ptr,
    grad_ptr,
    mixed_ptr,
    gate_ptr,
    token_stride,
    head_stride,
    num_features,
    head_dim: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Part of one token."""
    offset, gate_at, mask = _head_offsets(token_stride, head_stride, num_features, head_dim, BLOCK)
    grad = tl.load(grad_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    mixed = tl.load(mixed_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(tl.load(gate_ptr + gate_at, mask=mask, other=0.0).to(tl.float32))
    dmixed, dgate = grad * sigmoid, grad * mixed * sigmoid * (1.0 - sigmoid)
    tl.store(dmixed_ptr + offset, dmixed.to(dmixed_ptr.dtype.element_ty), mask=mask)
    tl.store(dgate_ptr + offset, dgate.to(dgate_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _head_offsets(
    token_stride, head_stride, num_features, head_dim: tl.constexpr, BLOCK: tl.constexpr
):
    """Where features of all heads lie, and their gates, which are strides apart."""
    token = tl.program_id(0).to(tl.int64)
    f = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    gate_at = token * token_stride + f // head_dim * head_stride + f % head_dim
    return token * num_features + f, gate_at, f < num_features
