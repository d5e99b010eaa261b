"""One token of every row through Gated DeltaNet as Triton kernels, in place.

Nearly all of the time goes to the rows' memories. What a token teaches is therefore kept beside a
memory, which is read for every token and written for every eighth only: where the row's position
ends a block of M.

Shapes: B rows, G key heads, H value heads, C features of a key, E of a value, F of all value heads,
O features of all projections, P channels of the convolution, W its width, L one less, M tokens
that are kept; heads are those of queries, keys and values.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from trainables.packing.compute.kernels.delta_gate import gate_norm
from trainables.packing.compute.kernels.inputs import L2_EPS

WIDTH = 4
"""W of every model so far; the kernel has a line for each."""
STRIPE, NUM_WARPS = 16, 2
"""Rows of a head's memory that a program holds at a time, and its warps. On an H200 a step of 2,048
rows of 16 heads of 128 x 128 takes 0.83 ms, 1.05 ms with 4 warps and 1.65 ms with 8; what it reads
and writes would take 0.7 ms at 4.2 TB/s."""
LENGTH_EPS = tl.constexpr(L2_EPS)


def delta_step(
    projected_BO: Tensor,
    conv_PW: Tensor,
    log_decay_H: Tensor,
    bias_H: Tensor,
    norm_E: Tensor,
    positions_B: Tensor,
    is_done_B: Tensor,
    eps: float,
    inputs_BLP: Tensor,
    memory_BHCE: Tensor,
    keys_BMX: Tensor,
    learnt_BMHE: Tensor,
    reach_BMH: Tensor,
) -> Tensor:
    """(B, F): mixers.gated_delta.step, from in_proj_qkv, z, b and a side by side.

    Args:
        positions_B: of the tokens in their rows.
        is_done_B: rows that are left as they are, and get zeros.
        inputs_BLP: the convolution's last inputs, which go on by one token.
        memory_BHCE: float32, with C and E powers of two, as M is; it is changed too.
        keys_BMX: all key heads of the tokens that were kept since the memory was written.
        learnt_BMHE: what these tokens taught, float32; zero for those of a prompt.
        reach_BMH: float32, the sum of log decays from the memory to each of them.
    """
    (num_rows, num_heads, key_dim, value_dim), num_kept = memory_BHCE.shape, keys_BMX.shape[1]
    (num_channels, width), size = conv_PW.shape, projected_BO.shape[1]
    num_key_heads = (num_channels - num_heads * value_dim) // (2 * key_dim)
    kept = (keys_BMX, learnt_BMHE, reach_BMH)
    tensors = (projected_BO, inputs_BLP, memory_BHCE, conv_PW, *kept)
    rows = (positions_B.contiguous(), is_done_B.contiguous().view(torch.uint8))
    assert all(tensor.is_contiguous() for tensor in tensors) and width == WIDTH
    heads_BP = projected_BO.new_empty(num_rows, num_channels)
    sizes = (num_channels, size, key_dim, value_dim)
    _convolve[(num_rows, 2 * num_key_heads + num_heads)](
        *(heads_BP, keys_BMX, projected_BO, inputs_BLP, conv_PW, *rows),
        *(key_dim**-0.5, num_key_heads, *sizes, max(key_dim, value_dim), num_kept),
        num_warps=1,
    )
    mixed_BHE = projected_BO.new_empty(num_rows, num_heads, value_dim)
    _learn[(num_rows * num_heads,)](
        *(mixed_BHE, memory_BHCE, *kept, heads_BP, projected_BO, log_decay_H, bias_H, *rows),
        *(num_heads, num_heads // num_key_heads, *sizes, min(STRIPE, key_dim), num_kept),
        num_warps=NUM_WARPS,
    )
    _write[(num_rows * num_heads,)](
        *(memory_BHCE, *kept, *rows, num_heads, num_heads // num_key_heads),
        *(key_dim, value_dim, min(STRIPE, key_dim), num_kept),
        num_warps=NUM_WARPS,
    )
    z_BF = projected_BO[:, num_channels : num_channels + num_heads * value_dim]
    return gate_norm(mixed_BHE, z_BF, norm_E, eps)


@triton.jit
def _convolve(
    heads_ptr,
    keys_ptr,
    projected_ptr,
    inputs_ptr,
    conv_ptr,
    positions_ptr,
    is_done_ptr,
    scale,
    num_key_heads,
    num_channels,
    size,
    C: tl.constexpr,
    E: tl.constexpr,
    BLOCK: tl.constexpr,
    KEPT: tl.constexpr,
):
    """One head of one row: silu of its convolution, queries and keys of unit length."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    if tl.load(is_done_ptr + row) != 0:
        return
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
    length = tl.rsqrt(tl.sum(turned * turned, axis=0) + LENGTH_EPS)
    length *= tl.where(head < num_key_heads, scale, 1.0)
    turned *= tl.where(is_value, 1.0, length)
    turned = turned.to(heads_ptr.dtype.element_ty)
    tl.store(heads_ptr + row * num_channels + first + c, turned, mask=mask)
    is_key = (head >= num_key_heads) & (head < 2 * num_key_heads)
    token = row * KEPT + tl.load(positions_ptr + row) % KEPT
    key_at = keys_ptr + token * num_key_heads * C + first - num_key_heads * C + c
    tl.store(key_at, turned, mask=mask & is_key)


@triton.jit
def _learn(
    mixed_ptr,
    memory_ptr,
    keys_ptr,
    learnt_ptr,
    reach_ptr,
    heads_ptr,
    projected_ptr,
    log_decay_ptr,
    bias_ptr,
    positions_ptr,
    is_done_ptr,
    num_heads,
    shared,
    num_channels,
    size,
    C: tl.constexpr,
    E: tl.constexpr,
    STRIPE: tl.constexpr,
    KEPT: tl.constexpr,
):
    """The memory of one value head, which fades and learns, and the query reads:
    D M + sum of fading_m k_m learnt_m', with the tokens m that were kept since M was written."""
    row, head = (tl.program_id(0) // num_heads).to(tl.int64), tl.program_id(0) % num_heads
    c, e = tl.arange(0, C), tl.arange(0, E)
    out = mixed_ptr + (row * num_heads + head) * E + e
    number = (tl.load(positions_ptr + row) % KEPT).to(tl.int32)
    if tl.load(is_done_ptr + row) != 0:
        tl.store(out, tl.zeros((E,), dtype=mixed_ptr.dtype.element_ty))
        return
    # The heads of a row: all queries, all keys, all values.
    q_ptr = heads_ptr + row * num_channels + head // shared * C
    key_size = num_heads // shared * C
    k_ptr = q_ptr + key_size
    # k' M and q' M, in one pass over M that holds a stripe of it at a time.
    memory_ptr += (row * num_heads + head) * C * E
    stripe = tl.arange(0, STRIPE)
    tile = stripe[:, None] * E + e[None, :]
    known_parts = tl.zeros((STRIPE, E), dtype=memory_ptr.dtype.element_ty)
    mixed_parts = known_parts
    for first in tl.static_range(0, C, STRIPE):
        memory = tl.load(memory_ptr + first * E + tile)
        known_parts += memory * tl.load(k_ptr + first + stripe).to(tl.float32)[:, None]
        mixed_parts += memory * tl.load(q_ptr + first + stripe).to(tl.float32)[:, None]
    # b and a of all heads are the last projections of a row.
    a_ptr = projected_ptr + (row + 1) * size - num_heads + head
    raised = tl.load(a_ptr).to(tl.float32) + tl.load(bias_ptr + head).to(tl.float32)
    # softplus, without overflow.
    soft = tl.maximum(raised, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(raised)))
    log_decay = -tl.exp(tl.load(log_decay_ptr + head).to(tl.float32)) * soft
    beta = tl.sigmoid(tl.load(a_ptr - num_heads).to(tl.float32))
    # The tokens that are kept: the first of a block of positions, as many as came before this one.
    m = tl.arange(0, KEPT)
    is_kept = m < number
    keys_ptr += row * KEPT * key_size + head // shared * C
    learnt_ptr += (row * KEPT * num_heads + head) * E + e
    reach_ptr += row * KEPT * num_heads + head
    keys_at = keys_ptr + m[:, None] * key_size + c[None, :]
    keys = tl.load(keys_at, mask=is_kept[:, None], other=0.0).to(tl.float32)
    taught_at = learnt_ptr[None, :] + m[:, None] * num_heads * E
    taught = tl.load(taught_at, mask=is_kept[:, None], other=0.0)
    reach = tl.load(reach_ptr + (number - 1) * num_heads, mask=number > 0, other=0.0) + log_decay
    fading = tl.exp(reach - tl.load(reach_ptr + m * num_heads, mask=is_kept, other=0.0))
    k, q = tl.load(k_ptr + c).to(tl.float32), tl.load(q_ptr + c).to(tl.float32)
    v = tl.load(heads_ptr + row * num_channels + 2 * key_size + head * E + e).to(tl.float32)
    known = tl.sum(known_parts, axis=0) * tl.exp(reach)
    known += tl.sum((tl.sum(keys * k[None, :], axis=1) * fading)[:, None] * taught, axis=0)
    learnt = (v - known) * beta
    mixed = tl.sum(mixed_parts, axis=0) * tl.exp(reach)
    mixed += tl.sum((tl.sum(keys * q[None, :], axis=1) * fading)[:, None] * taught, axis=0)
    mixed += tl.sum(k * q, axis=0) * learnt
    tl.store(out, mixed.to(mixed_ptr.dtype.element_ty))
    tl.store(learnt_ptr + number * num_heads * E, learnt)
    tl.store(reach_ptr + number * num_heads, reach)


@triton.jit
def _write(
    memory_ptr,
    keys_ptr,
    learnt_ptr,
    reach_ptr,
    positions_ptr,
    is_done_ptr,
    num_heads,
    shared,
    C: tl.constexpr,
    E: tl.constexpr,
    STRIPE: tl.constexpr,
    KEPT: tl.constexpr,
):
    """The memory of one value head behind the last token of a block of positions."""
    row, head = (tl.program_id(0) // num_heads).to(tl.int64), tl.program_id(0) % num_heads
    if tl.load(positions_ptr + row) % KEPT != KEPT - 1:
        return
    if tl.load(is_done_ptr + row) != 0:
        return
    stripe, e = tl.arange(0, STRIPE), tl.arange(0, E)
    memory_ptr += (row * num_heads + head) * C * E + stripe[:, None] * E + e[None, :]
    key_size = num_heads // shared * C
    keys_ptr += row * KEPT * key_size + head // shared * C + stripe
    learnt_ptr += (row * KEPT * num_heads + head) * E + e
    reach_ptr += row * KEPT * num_heads + head
    reach = tl.load(reach_ptr + (KEPT - 1) * num_heads)
    for first in range(0, C, STRIPE):
        memory = tl.load(memory_ptr + first * E) * tl.exp(reach)
        for old in tl.static_range(KEPT):
            fading = tl.exp(reach - tl.load(reach_ptr + old * num_heads))
            key = tl.load(keys_ptr + old * key_size + first).to(tl.float32) * fading
            memory += key[:, None] * tl.load(learnt_ptr + old * num_heads * E)[None, :]
        # Threads may hold the same numbers: all have read before one writes.
        tl.debug_barrier()
        tl.store(memory_ptr + first * E, memory)
