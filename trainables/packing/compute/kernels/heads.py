"""Norm and rotation of query and key heads as Triton kernels: each number is read and written once.

A compiler makes several kernels of the gradient, at twice the cost on an H200.

Shapes: N tokens, O outputs of the projection, H heads of one kind, C features of a head, R of them
that are turned.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from trainables.packing.compute.kernels.inputs import HeadLayout

FEATURES_PER_WARP, MOST_WARPS = 256, 16
"""Eight numbers a thread, 16 bytes of bfloat16, are one load."""


def heads(
    projected_NO: Tensor,
    norms: tuple[Tensor, Tensor] | None,
    cos_NR: Tensor,
    sin_NR: Tensor,
    layout: HeadLayout,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """elementwise.heads as one kernel a kind of head, rounded once.

    Values and gates are views of the projection. Norms are the base's, frozen: they get no
    gradients.
    """
    inputs = (projected_NO, cos_NR, sin_NR, norms, layout, eps)
    outputs: tuple[Tensor, Tensor, Tensor, Tensor | None]
    outputs = _Heads.apply(*inputs)  # type: ignore[no-untyped-call]
    return outputs


class _Heads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, projected_NO: Tensor, cos_NR: Tensor, sin_NR: Tensor, *others: Any
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        norms, layout, eps = ctx.others = others
        q, k, v, gate = layout.split(projected_NO)
        new_q, new_k = (
            torch.empty_like(part, memory_format=torch.contiguous_format) for part in (q, k)
        )
        query_C, key_C = norms or (None, None)
        _launch(_forward, (new_q, q), query_C, cos_NR, sin_NR, eps)
        _launch(_forward, (new_k, k), key_C, cos_NR, sin_NR, eps)
        ctx.save_for_backward(projected_NO, cos_NR, sin_NR)
        return new_q, new_k, v, gate

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        projected_NO, cos_NR, sin_NR = ctx.saved_tensors
        norms, layout, eps = ctx.others
        grad_NO = torch.empty_like(projected_NO)
        q, k, _, _ = layout.split(projected_NO)
        into_q, into_k, into_v, into_gate = layout.split(grad_NO)
        dq, dk, dv, dgate = (grad if grad is None else grad.contiguous() for grad in grads)
        query_C, key_C = norms or (None, None)
        # Gates have as many heads as queries, values as many as keys.
        views = (into_q, dq, q, into_gate, dgate)
        _launch(_backward, views, query_C, cos_NR, sin_NR, eps)
        _launch(_backward, (into_k, dk, k, into_v, dv), key_C, cos_NR, sin_NR, eps)
        return grad_NO, None, None, None, None, None


class _Part(NamedTuple):
    """Tokens of heads of features, or what is the same for all heads or tokens."""

    ptr: Tensor
    token_stride: int
    head_stride: int


class _Sizes(NamedTuple):
    num_heads: tl.constexpr
    head_dim: tl.constexpr
    num_turned: tl.constexpr
    """The first features of each head, as many as there are angles."""
    heads: tl.constexpr
    """As many as are loaded, some of them masked; so is features."""
    features: tl.constexpr


def _launch(
    kernel: Any,
    views: tuple[Tensor | None, ...],
    weight_C: Tensor | None,
    cos_NR: Tensor,
    sin_NR: Tensor,
    eps: float,
) -> None:
    """Run over the heads of one kind.

    Args:
        views: (N, H, C).
    """
    assert views[0] is not None
    num_tokens, num_heads, head_dim = views[0].shape
    loaded: list[int] = [triton.next_power_of_2(size) for size in (num_heads, head_dim)]
    sizes = (num_heads, head_dim, cos_NR.shape[1], *loaded)
    num_warps = min(MOST_WARPS, max(1, loaded[0] * loaded[1] // FEATURES_PER_WARP))
    kernel[(num_tokens,)](
        *(x_NHC if x_NHC is None else _Part(x_NHC, *x_NHC.stride()[:2]) for x_NHC in views),
        None if weight_C is None else _Part(weight_C, 0, 0),
        *(_Part(angles_NR, angles_NR.stride(0), 0) for angles_NR in (cos_NR, sin_NR)),
        eps,
        _Sizes(*map(tl.constexpr, sizes)),
        num_warps=num_warps,
    )


@triton.jit
def _forward(y, x, weight, cos, sin, eps, sizes):
    """All heads of one kind of one token.

    A turned feature's partner lies half of what is turned away (arXiv 2104.09864, in the layout of
    transformers' rotate_half).
    """
    c, is_real, partner, is_turned = _features(sizes)
    own, other = _load(x, c, is_real, 0.0, sizes), _load(x, partner, is_turned, 0.0, sizes)
    if weight is not None:
        scale = _scale(own, eps, sizes)
        own *= scale * _load(weight, c, is_real, 0.0, sizes)
        other *= scale * _load(weight, partner, is_turned, 0.0, sizes)
    cos_own, sin_own = _load(cos, c, is_turned, 1.0, sizes), _load(sin, c, is_turned, 0.0, sizes)
    # (low, high) * cos + (-high, low) * sin.
    _store(y, c, is_real, own * cos_own + tl.where(c < partner, -other, other) * sin_own, sizes)


@triton.jit
def _backward(dx, grad, x, into, beside, weight, cos, sin, eps, sizes):
    """The gradient of one token's heads: turned back, then through the norm.

    That of what lies beside them in the projection is copied into it.
    """
    c, is_real, partner, is_turned = _features(sizes)
    own, other = _load(grad, c, is_real, 0.0, sizes), _load(grad, partner, is_turned, 0.0, sizes)
    cos_own = _load(cos, c, is_turned, 1.0, sizes)
    sin_other = _load(sin, partner, is_turned, 0.0, sizes)
    # The transpose of the rotation above.
    d = own * cos_own + tl.where(c < partner, other, -other) * sin_other
    if weight is not None:
        # x * scale * weight, where scale depends on x: as in add_norm._backward, head by head.
        exact = _load(x, c, is_real, 0.0, sizes)
        scale = _scale(exact, eps, sizes)
        d *= _load(weight, c, is_real, 0.0, sizes)
        shared = tl.sum(d * exact, axis=1)[:, None] * scale * scale / sizes.head_dim
        d = scale * (d - exact * shared)
    _store(dx, c, is_real, d, sizes)
    if into is not None:
        _store(into, c, is_real, _load(beside, c, is_real, 0.0, sizes), sizes)


@triton.jit
def _features(sizes):
    """The features of a head and those that there are; their partners and those that have one."""
    c = tl.arange(0, sizes.features)[None, :]
    half: tl.constexpr = sizes.num_turned // 2
    partner = tl.where(c < half, c + half, c - half)
    return c, c < sizes.head_dim, partner, c < sizes.num_turned


@triton.jit
def _pointers(part, c, mask, sizes):
    """Where features of all heads of this program's token lie, and which there are."""
    head = tl.arange(0, sizes.heads)[:, None]
    token = tl.program_id(0).to(tl.int64)
    ptr = part.ptr + token * part.token_stride + head * part.head_stride + c
    return ptr, mask & (head < sizes.num_heads)


@triton.jit
def _load(part, c, mask, other, sizes):
    """Features of all heads, in float32.

    What heads share is read for each of them, from the cache, and so lies where they do: to hand
    a vector round would go through shared memory.
    """
    ptr, mask = _pointers(part, c, mask, sizes)
    return tl.load(ptr, mask=mask, other=other).to(tl.float32)


@triton.jit
def _store(part, c, mask, x, sizes):
    ptr, mask = _pointers(part, c, mask, sizes)
    tl.store(ptr, x.to(part.ptr.dtype.element_ty), mask=mask)


@triton.jit
def _scale(x, eps, sizes):
    """One over the root mean square of each head."""
    return tl.rsqrt(tl.sum(x * x, axis=1)[:, None] / sizes.head_dim + eps)
