"""silu(gate) * up as Triton kernels: each input is read once and each output written once.

A compiler lays the gradient's two halves together by computing both for each, at three times the
cost on an H200.

Shapes: N tokens, F features between gate and down.
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
