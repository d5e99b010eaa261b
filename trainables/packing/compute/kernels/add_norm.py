"""A sum and its root mean square norm as Triton kernels: each number is read and written once.

One program holds a whole token, so no sum crosses programs and a token's numbers do not depend on
its neighbours.

Shapes: N tokens, D features.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

FEATURES_PER_WARP, MOST_WARPS = 256, 16
"""Eight numbers a thread, 16 bytes of bfloat16, are one load."""


def add_norm(
    x_ND: Tensor, y_ND: Tensor | None, weight_D: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """elementwise.add_norm as one kernel, rounded where it rounds; the gradient is rounded once.

    The weight is the base's, frozen: it gets no gradient.
    """
    inputs = (x_ND, y_ND, weight_D, eps)
    outputs: tuple[Tensor, Tensor] = _AddNorm.apply(*inputs)  # type: ignore[no-untyped-call]
    return outputs


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, y_ND: Tensor | None, weight_D: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        x_ND = x_ND.contiguous()
        total_ND = x_ND if y_ND is None else torch.empty_like(x_ND)
        normed_ND = torch.empty_like(x_ND)
        other_ND = None if y_ND is None else y_ND.contiguous()
        num_features, options = x_ND.shape[1], _options(x_ND)
        _forward[(len(x_ND),)](
            total_ND, normed_ND, x_ND, other_ND, weight_D, num_features, eps, **options
        )
        ctx.save_for_backward(total_ND, weight_D)
        ctx.others = (y_ND is not None, eps)
        return total_ND, normed_ND

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        total_ND, weight_D = ctx.saved_tensors
        has_other, eps = ctx.others
        grad_total_ND, grad_normed_ND = (grad.contiguous() for grad in grads)
        grad_ND = torch.empty_like(total_ND)
        inputs = (grad_total_ND, grad_normed_ND, total_ND, weight_D)
        num_features, options = total_ND.shape[1], _options(total_ND)
        _backward[(len(total_ND),)](grad_ND, *inputs, num_features, eps, **options)
        return grad_ND, grad_ND if has_other else None, None, None


def _options(x_ND: Tensor) -> dict[str, int]:
    block: int = triton.next_power_of_2(x_ND.shape[1])
    num_warps = min(MOST_WARPS, max(1, block // FEATURES_PER_WARP))
    return {"BLOCK": block, "num_warps": num_warps}


@triton.jit
def _forward(
    total_ptr, normed_ptr, x_ptr, y_ptr, weight_ptr, num_features, eps, BLOCK: tl.constexpr
):
    """One token: total = x + y, and normed = weight * total / rms(total)."""
    kind = normed_ptr.dtype.element_ty
    row = tl.program_id(0).to(tl.int64) * num_features
    d = tl.arange(0, BLOCK)
    mask = d < num_features
    total = tl.load(x_ptr + row + d, mask=mask, other=0.0).to(tl.float32)
    if y_ptr is not None:
        total += tl.load(y_ptr + row + d, mask=mask, other=0.0).to(tl.float32)
        tl.store(total_ptr + row + d, total.to(kind), mask=mask)
        # The norm is that of the rounded sum: unfused, it would read the sum back from memory, and
        # the backward pass does.
        total = total.to(kind).to(tl.float32)
    # Rounded before the weight to the weight's type: Qwen3's is the sum's, and that of Qwen3.5, one
    # plus what is stored, float32.
    normed = total * _scale(total, num_features, eps)
    normed = normed.to(weight_ptr.dtype.element_ty).to(tl.float32)
    weight = tl.load(weight_ptr + d, mask=mask, other=0.0).to(tl.float32)
    tl.store(normed_ptr + row + d, (normed * weight).to(kind), mask=mask)


@triton.jit
def _backward(
    dx_ptr,
    grad_total_ptr,
    grad_normed_ptr,
    total_ptr,
    weight_ptr,
    num_features,
    eps,
    BLOCK: tl.constexpr,
):
    """One token: the gradient of the sum, by both of its uses."""
    row = tl.program_id(0).to(tl.int64) * num_features
    d = tl.arange(0, BLOCK)
    mask = d < num_features
    total = tl.load(total_ptr + row + d, mask=mask, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + d, mask=mask, other=0.0).to(tl.float32)
    grad = tl.load(grad_normed_ptr + row + d, mask=mask, other=0.0).to(tl.float32) * weight
    through = tl.load(grad_total_ptr + row + d, mask=mask, other=0.0).to(tl.float32)
    # With s = rsqrt(mean(t^2) + eps) and g the gradient of t * s: ds/dt_j = -s^3 t_j / D, so that
    # dL/dt = s * (g - t * s^2 * sum(g * t) / D). The residual's own gradient is added to it.
    scale = _scale(total, num_features, eps)
    shared = tl.sum(grad * total, axis=0) * scale * scale / num_features
    grad_total = through + scale * (grad - total * shared)
    tl.store(dx_ptr + row + d, grad_total.to(dx_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _scale(x, num_features, eps):
    """One over the root mean square."""
    return tl.rsqrt(tl.sum(x * x, axis=0) / num_features + eps)
