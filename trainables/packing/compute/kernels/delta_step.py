"""One token of every row through Gated DeltaNet as Triton kernels: what a row keeps is read and
written once, in place.

Shapes: B rows, G key heads, H value heads, C features of a key, E of a value, F of all value heads,
O features of all projections, P channels of the convolution, W its width, L one less; heads are
those of queries, keys and values.
"""

import triton
import triton.language as tl
from torch import Tensor

from trainables.packing.compute.kernels.delta_gate import gate_norm

WIDTH = 4
"""W of every model so far; the kernel has a line for each."""
BLOCK_E, NUM_WARPS = 64, 8
"""Columns of a head's memory that a program has: 32 KiB of 128 rows, 32 registers a thread. Three
programs fit a multiprocessor then, so that some load while others compute."""
L2_EPS = tl.constexpr(1e-6)
"""As transformers' l2norm has it."""


def delta_step(
    projected_BO: Tensor,
    conv_PW: Tensor,
    log_decay_H: Tensor,
    bias_H: Tensor,
    norm_E: Tensor,
    inputs_BLP: Tensor,
    memory_BHCE: Tensor,
    eps: float,
) -> Tensor:
    """(B, F): mixers.gated_delta.step, from in_proj_qkv, z, b and a side by side.

    Args:
        inputs_BLP: the convolution's last inputs, which go on by one token.
        memory_BHCE: float32, with C and E powers of two; it is changed too.
    """
    num_rows, num_heads, key_dim, value_dim = memory_BHCE.shape
    (num_channels, width), size = conv_PW.shape, projected_BO.shape[1]
    num_key_heads = (num_channels - num_heads * value_dim) // (2 * key_dim)
    tensors = (projected_BO, inputs_BLP, memory_BHCE, conv_PW)
    assert all(tensor.is_contiguous() for tensor in tensors) and width == WIDTH
    heads_BP = projected_BO.new_empty(num_rows, num_channels)
    sizes = (num_channels, size, key_dim, value_dim)
    _convolve[(num_rows, 2 * num_key_heads + num_heads)](
        *(heads_BP, projected_BO, inputs_BLP, conv_PW, key_dim**-0.5, num_key_heads, *sizes),
        max(key_dim, value_dim),
        num_warps=1,
    )
    mixed_BHE = projected_BO.new_empty(num_rows, num_heads, value_dim)
    block = min(BLOCK_E, value_dim)
    _learn[(num_rows * num_heads, value_dim // block)](
        *(mixed_BHE, memory_BHCE, heads_BP, projected_BO, log_decay_H, bias_H),
        *(num_heads, num_heads // num_key_heads, *sizes, block),
        num_warps=NUM_WARPS,
    )
    z_BF = projected_BO[:, num_channels : num_channels + num_heads * value_dim]
    return gate_norm(mixed_BHE, z_BF, norm_E, eps)


@triton.jit
def _convolve(
    heads_ptr,
    projected_ptr,
    inputs_ptr,
    conv_ptr,
    scale,
    num_key_heads,
    num_channels,
    size,
    C: tl.constexpr,
    E: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One head of one row: silu of its convolution, queries and keys of unit length."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    is_value = head >= 2 * num_key_heads
    first = tl.where(is_value, 2 * num_key_heads * (C - E) + head * E, head * C)
    c = tl.arange(0, BLOCK)
    mask = c < tl.where(is_value, E, C)
    at = inputs_ptr + row * 3 * num_channels + first + c
    new = tl.load(projected_ptr + row * size + first + c, mask=mask, other=0.0)
    third = tl.load(at, mask=mask, other=0.0)
    second = tl.load(at + num_channels, mask=mask, other=0.0)
    latest = tl.load(at + 2 * num_channels, mask=mask, other=0.0)
    weights = conv_ptr + (first + c) * 4
    total = third.to(tl.float32) * tl.load(weights, mask=mask, other=0.0).to(tl.float32)
    total += second.to(tl.float32) * tl.load(weights + 1, mask=mask, other=0.0).to(tl.float32)
    total += latest.to(tl.float32) * tl.load(weights + 2, mask=mask, other=0.0).to(tl.float32)
    total += new.to(tl.float32) * tl.load(weights + 3, mask=mask, other=0.0).to(tl.float32)
    # Threads may hold the same numbers: all have read before one writes.
    tl.debug_barrier()
    tl.store(at, second, mask=mask)
    tl.store(at + num_channels, latest, mask=mask)
    tl.store(at + 2 * num_channels, new, mask=mask)
    turned = total * tl.sigmoid(total)
    length = tl.rsqrt(tl.sum(turned * turned, axis=0) + L2_EPS)
    length *= tl.where(head < num_key_heads, scale, 1.0)
    turned *= tl.where(is_value, 1.0, length)
    out = heads_ptr + row * num_channels + first + c
    tl.store(out, turned.to(heads_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _learn(
    mixed_ptr,
    memory_ptr,
    heads_ptr,
    projected_ptr,
    log_decay_ptr,
    bias_ptr,
    num_heads,
    shared,
    num_channels,
    size,
    C: tl.constexpr,
    E: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Some columns of the memory of one value head: it fades and learns, and the query reads."""
    row, head = (tl.program_id(0) // num_heads).to(tl.int64), tl.program_id(0) % num_heads
    c, e = tl.arange(0, C), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    at = memory_ptr + ((row * num_heads + head) * C + c[:, None]) * E + e[None, :]
    memory = tl.load(at)
    # The heads of a row: all queries, all keys, all values.
    q_ptr = heads_ptr + row * num_channels + head // shared * C
    key_size = num_heads // shared * C
    q = tl.load(q_ptr + c).to(tl.float32)
    k = tl.load(q_ptr + key_size + c).to(tl.float32)
    v_ptr = heads_ptr + row * num_channels + 2 * key_size + head * E
    v = tl.load(v_ptr + e).to(tl.float32)
    # b and a of all heads are the last projections of a row.
    a_ptr = projected_ptr + (row + 1) * size - num_heads + head
    raised = tl.load(a_ptr).to(tl.float32) + tl.load(bias_ptr + head).to(tl.float32)
    # softplus, without overflow.
    soft = tl.maximum(raised, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(raised)))
    decay = tl.exp(-tl.exp(tl.load(log_decay_ptr + head).to(tl.float32)) * soft)
    beta = tl.sigmoid(tl.load(a_ptr - num_heads).to(tl.float32))
    memory *= decay
    learnt = (v - tl.sum(memory * k[:, None], axis=0)) * beta
    # What the query reads of the new memory, without a sum that waits for it.
    mixed = tl.sum(memory * q[:, None], axis=0) + tl.sum(k * q, axis=0) * learnt
    # As in _convolve, where a memory is small.
    tl.debug_barrier()
    tl.store(at, memory + k[:, None] * learnt[None, :])
    out = mixed_ptr + (row * num_heads + head) * E + e
    tl.store(out, mixed.to(mixed_ptr.dtype.element_ty))
