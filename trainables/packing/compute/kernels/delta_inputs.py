"""What Gated DeltaNet's rule takes, made of its projections by Triton kernels: the short
convolution within each row and its silu, queries and keys of unit length, decays and step sizes.

Only the projections get a gradient: everything else is frozen.

Shapes: N tokens, O features of all projections, G key heads, H value heads, C features of a key, E
of a value, P channels of the convolution, W its width.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from trainables.packing.compute.kernels.inputs import L2_EPS, DeltaSizes

BLOCK_TOKENS = 32
"""Tokens of one head that one program works on."""
LENGTH_EPS = tl.constexpr(L2_EPS)


class DeltaInputs(NamedTuple):
    """What the rule takes of every token, and the gate behind it."""

    q_NGC: Tensor
    """Unit vectors, as keys are."""
    k_NGC: Tensor
    v_NHE: Tensor
    log_decay_NH: Tensor
    """float32."""
    beta_NH: Tensor
    z_NF: Tensor
    """A view of the projections."""


def delta_inputs(
    projected_NO: Tensor,
    conv_PW: Tensor,
    log_decay_H: Tensor,
    bias_H: Tensor,
    position_ids_N: Tensor,
    sizes: DeltaSizes,
) -> DeltaInputs:
    """Splits and prepares the projections [queries | keys | values | z | b | a].

    Args:
        position_ids_N: int32, each token's position in its row: the convolution sees no further.
    """
    frozen = (conv_PW.contiguous(), log_decay_H, bias_H, position_ids_N, sizes)
    return DeltaInputs(*_DeltaInputs.apply(projected_NO, *frozen))  # type: ignore[no-untyped-call]


class _DeltaInputs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, projected_NO: Tensor, *frozen: Any) -> tuple[Tensor, ...]:
        conv_PW, log_decay_H, bias_H, position_ids_N, sizes = ctx.frozen = frozen
        *parts, z_NF, b_NH, a_NH = _split(projected_NO, sizes)
        made = []
        for number, conv in enumerate(_split_channels(conv_PW, sizes)):
            x_NHC = parts[number]
            out = torch.empty_like(x_NHC, memory_format=torch.contiguous_format)
            args = (x_NHC, x_NHC.stride(0), conv, position_ids_N)
            _convolve[_grid(x_NHC)](out, *args, **_options(x_NHC, conv, has_norm=number < 2))
            made.append(out)
        beta_NH = torch.empty_like(b_NH, memory_format=torch.contiguous_format)
        decay_NH = torch.empty_like(beta_NH, dtype=torch.float32)
        _decay[(len(b_NH),)](beta_NH, decay_NH, *_decay_args(b_NH, a_NH, log_decay_H, bias_H))
        ctx.save_for_backward(projected_NO)
        return *made, decay_NH, beta_NH, z_NF

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (projected_NO,) = ctx.saved_tensors
        conv_PW, log_decay_H, bias_H, position_ids_N, sizes = ctx.frozen
        *parts, _, b_NH, a_NH = _split(projected_NO, sizes)
        grad_NO = torch.empty_like(projected_NO)
        *into, into_z, into_b, into_a = _split(grad_NO, sizes)
        grad_decay_NH, grad_beta_NH, grad_z_NF = grads[3:]
        for number, conv in enumerate(_split_channels(conv_PW, sizes)):
            x_NHC, grad_NHC = parts[number], grads[number].contiguous()
            turned_NHC = torch.empty_like(grad_NHC)
            args = (x_NHC, x_NHC.stride(0), conv, position_ids_N)
            options = _options(x_NHC, conv, has_norm=number < 2)
            _turn_back[_grid(x_NHC)](turned_NHC, grad_NHC, *args, **options)
            # z has as many features as values, and its gradient goes along with theirs.
            beside = (into_z, grad_z_NF.contiguous()) if number == 2 else (None, None)
            args = (into[number], into[number].stride(0), *beside, conv, position_ids_N)
            _convolve_back[_grid(x_NHC)](turned_NHC, *args, **_options(x_NHC, conv))
        grads_NH = (grad_beta_NH.contiguous(), grad_decay_NH.contiguous())
        args = (*grads_NH, *_decay_args(b_NH, a_NH, log_decay_H, bias_H))
        _decay_back[(len(b_NH),)](into_b, into_a, *args)
        return grad_NO, None, None, None, None, None


def _split(projected_NO: Tensor, sizes: DeltaSizes) -> list[Tensor]:
    """Views: queries, keys and values (N, heads, features), and z, b and a (N, features)."""
    key_size = sizes.num_key_heads * sizes.key_head_dim
    value_size = sizes.num_heads * sizes.value_head_dim
    widths = [key_size, key_size, value_size, value_size, sizes.num_heads, sizes.num_heads]
    q, k, v, *others = torch.split(projected_NO, widths, dim=1)
    heads = [x.view(len(x), sizes.num_key_heads, -1) for x in (q, k)]
    return [*heads, v.view(len(v), sizes.num_heads, -1), *others]


def _split_channels(conv_PW: Tensor, sizes: DeltaSizes) -> tuple[Tensor, ...]:
    key_size = sizes.num_key_heads * sizes.key_head_dim
    return torch.split(conv_PW, [key_size, key_size, len(conv_PW) - 2 * key_size])


def _decay_args(b_NH: Tensor, a_NH: Tensor, *frozen_H: Tensor) -> tuple[Any, ...]:
    num_heads = b_NH.shape[1]
    return b_NH, a_NH, b_NH.stride(0), *frozen_H, num_heads, triton.next_power_of_2(num_heads)


def _grid(x_NHC: Tensor) -> tuple[int, int]:
    return triton.cdiv(len(x_NHC), BLOCK_TOKENS), x_NHC.shape[1]


def _options(x_NHC: Tensor, conv_PW: Tensor, **flags: bool) -> dict[str, Any]:
    num_tokens, num_heads, head_dim = x_NHC.shape
    upper = {name.upper(): flag for name, flag in flags.items()}
    sizes = {"num_tokens": num_tokens, "num_heads": num_heads, "head_dim": head_dim}
    blocks = {"BLOCK_T": BLOCK_TOKENS, "BLOCK_C": triton.next_power_of_2(head_dim)}
    # With fewer warps a thread holds more numbers than registers for them.
    return {**sizes, **upper, "WIDTH": conv_PW.shape[1], **blocks, "num_warps": 8}


@triton.jit
def _convolve(
    out_ptr,
    x_ptr,
    x_stride,
    conv_ptr,
    positions_ptr,
    num_tokens,
    num_heads,
    head_dim,
    HAS_NORM: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Some tokens of one head."""
    t, c, mask = _block(num_tokens, head_dim, BLOCK_T, BLOCK_C)
    y = _mix(x_ptr, x_stride, conv_ptr, positions_ptr, t, c, mask, num_tokens, head_dim, WIDTH)
    y = y * tl.sigmoid(y)
    if HAS_NORM:
        y = y * tl.rsqrt(tl.sum(y * y, axis=1) + LENGTH_EPS)[:, None]
    offset = _offset(t, c, num_heads, head_dim)
    tl.store(out_ptr + offset, y.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _turn_back(
    out_ptr,
    grad_ptr,
    x_ptr,
    x_stride,
    conv_ptr,
    positions_ptr,
    num_tokens,
    num_heads,
    head_dim,
    HAS_NORM: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The gradient of what the convolution gives, which is made again."""
    t, c, mask = _block(num_tokens, head_dim, BLOCK_T, BLOCK_C)
    y = _mix(x_ptr, x_stride, conv_ptr, positions_ptr, t, c, mask, num_tokens, head_dim, WIDTH)
    gate = tl.sigmoid(y)
    offset = _offset(t, c, num_heads, head_dim)
    grad = tl.load(grad_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    if HAS_NORM:
        # With s = rsqrt(sum(u^2) + eps): d(u s)/du = s (g - u s^2 sum(g u)).
        u = y * gate
        scale = tl.rsqrt(tl.sum(u * u, axis=1) + LENGTH_EPS)[:, None]
        grad = scale * (grad - u * scale * scale * tl.sum(grad * u, axis=1)[:, None])
    grad = grad * gate * (1.0 + y * (1.0 - gate))
    tl.store(out_ptr + offset, grad.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _convolve_back(
    grad_ptr,
    out_ptr,
    out_stride,
    z_out_ptr,
    z_grad_ptr,
    conv_ptr,
    positions_ptr,
    num_tokens,
    num_heads,
    head_dim,
    WIDTH: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The gradient of the convolution's inputs, for some tokens of one head."""
    t, c, mask = _block(num_tokens, head_dim, BLOCK_T, BLOCK_C)
    head = tl.program_id(1) * head_dim
    total = tl.zeros((BLOCK_T, BLOCK_C), dtype=tl.float32)
    for back in tl.static_range(WIDTH):
        # The token `back` places later saw this one, if it stands that far into its row.
        later = t + back
        position = tl.load(positions_ptr + later, mask=later < num_tokens, other=-1)
        is_seen = mask & (position >= back)[:, None]
        offset = _offset(later, c, num_heads, head_dim)
        grad = tl.load(grad_ptr + offset, mask=is_seen, other=0.0).to(tl.float32)
        total += grad * _weights(conv_ptr, head, c, head_dim, WIDTH - 1 - back, WIDTH)
    out_at = t[:, None] * out_stride + head + c[None, :]
    tl.store(out_ptr + out_at, total.to(out_ptr.dtype.element_ty), mask=mask)
    if z_grad_ptr is not None:
        offset = _offset(t, c, num_heads, head_dim)
        tl.store(z_out_ptr + out_at, tl.load(z_grad_ptr + offset, mask=mask), mask=mask)


@triton.jit
def _block(num_tokens, head_dim, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr):
    t = tl.program_id(0).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    c = tl.arange(0, BLOCK_C)
    return t, c, (t < num_tokens)[:, None] & (c < head_dim)[None, :]


@triton.jit
def _offset(t, c, num_heads, head_dim):
    """Where tokens of one head lie, of heads side by side."""
    return t[:, None] * num_heads * head_dim + tl.program_id(1) * head_dim + c[None, :]


@triton.jit
def _mix(
    x_ptr,
    x_stride,
    conv_ptr,
    positions_ptr,
    t,
    c,
    mask,
    num_tokens,
    head_dim,
    WIDTH: tl.constexpr,
):
    """The convolution of one head's tokens with those before them in their rows, in float32."""
    head = tl.program_id(1) * head_dim
    position = tl.load(positions_ptr + t, mask=t < num_tokens, other=-1)
    total = tl.zeros(mask.shape, dtype=tl.float32)
    for back in tl.static_range(WIDTH):
        is_seen = mask & (position >= back)[:, None]
        offset = (t - back)[:, None] * x_stride + head + c[None, :]
        x = tl.load(x_ptr + offset, mask=is_seen, other=0.0).to(tl.float32)
        total += x * _weights(conv_ptr, head, c, head_dim, WIDTH - 1 - back, WIDTH)
    return total


@triton.jit
def _weights(conv_ptr, head, c, head_dim, place, WIDTH: tl.constexpr):
    weights = tl.load(conv_ptr + (head + c) * WIDTH + place, mask=c < head_dim, other=0.0)
    return weights.to(tl.float32)[None, :]


@triton.jit
def _decay(
    beta_ptr,
    decay_ptr,
    b_ptr,
    a_ptr,
    stride,
    log_decay_ptr,
    bias_ptr,
    num_heads,
    BLOCK_H: tl.constexpr,
):
    """All heads of one token: beta = sigmoid(b), and the log decay -exp(A) softplus(a + bias)."""
    token = tl.program_id(0).to(tl.int64)
    h = tl.arange(0, BLOCK_H)
    mask = h < num_heads
    b = tl.load(b_ptr + token * stride + h, mask=mask, other=0.0).to(tl.float32)
    rate, raised = _rates(a_ptr + token * stride, log_decay_ptr, bias_ptr, h, mask)
    # softplus, without overflow.
    soft = tl.maximum(raised, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(raised)))
    at = token * num_heads + h
    tl.store(beta_ptr + at, tl.sigmoid(b).to(beta_ptr.dtype.element_ty), mask=mask)
    tl.store(decay_ptr + at, -rate * soft, mask=mask)


@triton.jit
def _decay_back(
    into_b_ptr,
    into_a_ptr,
    grad_beta_ptr,
    grad_decay_ptr,
    b_ptr,
    a_ptr,
    stride,
    log_decay_ptr,
    bias_ptr,
    num_heads,
    BLOCK_H: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    h = tl.arange(0, BLOCK_H)
    mask = h < num_heads
    at, into = token * num_heads + h, token * stride + h
    beta = tl.sigmoid(tl.load(b_ptr + into, mask=mask, other=0.0).to(tl.float32))
    grad = tl.load(grad_beta_ptr + at, mask=mask, other=0.0).to(tl.float32) * beta * (1.0 - beta)
    tl.store(into_b_ptr + into, grad.to(into_b_ptr.dtype.element_ty), mask=mask)
    rate, raised = _rates(a_ptr + token * stride, log_decay_ptr, bias_ptr, h, mask)
    grad = tl.load(grad_decay_ptr + at, mask=mask, other=0.0).to(tl.float32)
    grad = -grad * rate * tl.sigmoid(raised)
    tl.store(into_a_ptr + into, grad.to(into_a_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _rates(a_ptr, log_decay_ptr, bias_ptr, h, mask):
    """exp(A), and a + bias, of all heads."""
    rate = tl.exp(tl.load(log_decay_ptr + h, mask=mask, other=0.0).to(tl.float32))
    a = tl.load(a_ptr + h, mask=mask, other=0.0).to(tl.float32)
    return rate, a + tl.load(bias_ptr + h, mask=mask, other=0.0).to(tl.float32)
