"""One token of every row through Gated DeltaNet, as one Triton kernel: what a row keeps is read and
written once, in place.

A program has a row and a key head, with the value heads that share it: so nothing that it changes
is read by another.

Shapes: B rows, G key heads, H value heads, C features of a key, E of a value, F of all value heads,
O features of all projections, P channels of the convolution, W its width, L one less.
"""

import triton
import triton.language as tl
from torch import Tensor

WIDTH = 4
"""W of every model so far; the kernel has a line for each."""
BLOCK_E, NUM_WARPS = 64, 8
"""Columns of a head's memory that are held together: of 128 rows 32 KiB, or 32 registers a thread.
Three programs or more fit a multiprocessor, so that some load while others compute."""
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
    num_channels = conv_PW.shape[0]
    num_key_heads = (num_channels - num_heads * value_dim) // (2 * key_dim)
    block = min(BLOCK_E, value_dim)
    tensors = (projected_BO, inputs_BLP, memory_BHCE, conv_PW)
    assert all(tensor.is_contiguous() for tensor in tensors) and conv_PW.shape[1] == WIDTH
    mixed_BF = projected_BO.new_empty(num_rows, num_heads * value_dim)
    numbers = (eps, key_dim**-0.5, num_key_heads, num_heads // num_key_heads)
    _step[(num_rows * num_key_heads,)](
        *(mixed_BF, *tensors, log_decay_H, bias_H, norm_E, *numbers),
        *(key_dim, value_dim, block, value_dim // block),
        num_warps=NUM_WARPS,
    )
    return mixed_BF


@triton.jit
def _step(
    mixed_ptr,
    projected_ptr,
    inputs_ptr,
    memory_ptr,
    conv_ptr,
    log_decay_ptr,
    bias_ptr,
    norm_ptr,
    eps,
    scale,
    num_key_heads,
    shared,
    C: tl.constexpr,
    E: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """One row and one key head."""
    row = (tl.program_id(0) // num_key_heads).to(tl.int64)
    key_head = tl.program_id(0) % num_key_heads
    num_heads = num_key_heads * shared
    num_channels = 2 * num_key_heads * C + num_heads * E
    # The projections of a row: its channels, then z, b and a of all value heads.
    z_ptr = projected_ptr + row * (num_channels + num_heads * (E + 2)) + num_channels
    new_ptr, b_ptr, a_ptr = z_ptr - num_channels, z_ptr + num_heads * E, z_ptr + num_heads * (E + 1)
    inputs_ptr += row * 3 * num_channels
    c = key_head * C + tl.arange(0, C)
    q = _convolve(new_ptr, inputs_ptr, conv_ptr, c, num_channels)
    k = _convolve(new_ptr, inputs_ptr, conv_ptr, num_key_heads * C + c, num_channels)
    q *= tl.rsqrt(tl.sum(q * q, axis=0) + L2_EPS) * scale
    k *= tl.rsqrt(tl.sum(k * k, axis=0) + L2_EPS)
    overlap = tl.sum(q * k, axis=0)
    block, e = tl.arange(0, BLOCKS)[:, None], tl.arange(0, BLOCK)
    for head in range(key_head * shared, (key_head + 1) * shared):
        raised = tl.load(a_ptr + head).to(tl.float32) + tl.load(bias_ptr + head).to(tl.float32)
        # softplus, without overflow.
        soft = tl.maximum(raised, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(raised)))
        decay = tl.exp(-tl.exp(tl.load(log_decay_ptr + head).to(tl.float32)) * soft)
        beta = tl.sigmoid(tl.load(b_ptr + head).to(tl.float32))
        first_v = 2 * num_key_heads * C + head * E
        columns_ptr = memory_ptr + ((row * num_heads + head) * C + tl.arange(0, C))[:, None] * E + e
        mixed = tl.zeros((BLOCKS, BLOCK), dtype=tl.float32)
        for number in range(BLOCKS):
            memory = tl.load(columns_ptr + number * BLOCK) * decay
            v = _convolve(new_ptr, inputs_ptr, conv_ptr, first_v + number * BLOCK + e, num_channels)
            known = tl.sum(memory * k[:, None], axis=0)
            read = tl.sum(memory * q[:, None], axis=0)
            learnt = (v - known) * beta
            tl.store(columns_ptr + number * BLOCK, memory + k[:, None] * learnt[None, :])
            # What the query reads of the new memory, without another sum over its rows.
            read += overlap * learnt
            mixed = tl.where(block == number, read[None, :], mixed)
        at = head * E + block * BLOCK + e[None, :]
        z = tl.load(z_ptr + at).to(tl.float32)
        norm = tl.load(norm_ptr + block * BLOCK + e[None, :])
        kind = mixed_ptr.dtype.element_ty
        # As elementwise.gate_norm rounds: before the weight, and after it if it is of that type.
        mixed = mixed.to(kind).to(tl.float32)
        mean = tl.sum(tl.sum(mixed * mixed, axis=1), axis=0) / E
        gated = (mixed * tl.rsqrt(mean + eps)).to(kind).to(tl.float32) * norm.to(tl.float32)
        if norm.dtype == kind:
            gated = gated.to(kind).to(tl.float32)
        gated *= z * tl.sigmoid(z)
        tl.store(mixed_ptr + row * num_heads * E + at, gated.to(kind))


@triton.jit
def _convolve(new_ptr, inputs_ptr, conv_ptr, channels, num_channels):
    """silu of the convolution of some channels, in float32; their inputs move up by one token."""
    at = inputs_ptr + channels
    new = tl.load(new_ptr + channels)
    third = tl.load(at)
    second = tl.load(at + num_channels)
    first = tl.load(at + 2 * num_channels)
    weights = conv_ptr + channels * 4
    total = third.to(tl.float32) * tl.load(weights).to(tl.float32)
    total += second.to(tl.float32) * tl.load(weights + 1).to(tl.float32)
    total += first.to(tl.float32) * tl.load(weights + 2).to(tl.float32)
    total += new.to(tl.float32) * tl.load(weights + 3).to(tl.float32)
    # Threads may hold the same numbers: all have read before one writes. What the program has
    # loaded of a memory too, which is as small in a small model.
    tl.debug_barrier()
    tl.store(at, second)
    tl.store(at + num_channels, first)
    tl.store(at + 2 * num_channels, new)
    return total * tl.sigmoid(total)
