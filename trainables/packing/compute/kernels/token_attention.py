"""Attention of one new token a row to the row's kept keys and values, as a Triton kernel.

A row's keys are read once for all query heads that share them, and only as far as the row goes:
torch's attention reads the padding behind it too.

Shapes: B rows, H query heads, G key heads, T positions of a row, C features of a head.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST_POSITIONS, MOST_NUMBERS = 64, 64 * 128
"""Positions whose keys are held at a time, and numbers of them: 16 KiB of bfloat16."""
MIN_QUERIES = 16
"""The smallest side of a matrix that tensor cores multiply."""


def token_attention(
    q_BHC: Tensor, keys_BGTC: Tensor, values_BGTC: Tensor, positions_B: Tensor
) -> Tensor:
    """(B, H, C): each row's queries over its positions up to positions_B, its own included.

    Keys and values have equal strides, with the features of a position side by side.
    """
    num_rows, num_heads, head_dim = q_BHC.shape
    num_key_heads = keys_BGTC.shape[1]
    assert keys_BGTC.stride() == values_BGTC.stride()
    assert keys_BGTC.stride()[2:] == (head_dim, 1)
    q_BHC = q_BHC.contiguous()
    # Slots that share one row of the batch have one number, expanded.
    positions_B = positions_B.contiguous()
    mixed_BHC = torch.empty_like(q_BHC)
    shared = num_heads // num_key_heads
    tensors = (q_BHC, keys_BGTC, values_BGTC, positions_B, mixed_BHC)
    numbers = (head_dim**-0.5, *keys_BGTC.stride()[:2], shared, head_dim)
    block_q, block_c = (triton.next_power_of_2(size) for size in (shared, head_dim))
    blocks = (max(MIN_QUERIES, block_q), held_positions(block_c), block_c)
    _attend[(num_rows, num_key_heads)](*tensors, *numbers, *blocks)
    return mixed_BHC


def held_positions(num_features: int) -> int:
    """How many positions have their keys held at a time, with so many features each."""
    return min(MOST_POSITIONS, MOST_NUMBERS // num_features)


@triton.jit
def _attend(
    q_ptr,
    keys_ptr,
    values_ptr,
    positions_ptr,
    mixed_ptr,
    scale,
    row_stride,
    head_stride,
    shared,
    head_dim,
    BLOCK_Q: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """One row and one key head: all query heads that share it, as the rows of one matrix."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    # The new token's own key is in the cache already, hence + 1.
    end = tl.load(positions_ptr + row).to(tl.int32) + 1
    # Grouped-query attention: `shared` neighbouring query heads belong to one key head. BLOCK_Q is
    # 16 at least, the least that tensor cores take; what is added is masked.
    number = tl.arange(0, BLOCK_Q)
    c = tl.arange(0, BLOCK_C)
    is_feature = c < head_dim
    first = (row * tl.num_programs(1) + head) * shared
    offset_q = (first + number)[:, None] * head_dim + c[None, :]
    mask_q = (number < shared)[:, None] & is_feature[None, :]
    q = tl.load(q_ptr + offset_q, mask=mask_q, other=0.0)
    base = row * row_stride + head * head_stride
    # Online softmax (arXiv 2205.14135, algorithm 1): the largest score so far, the sum of
    # exp(score - best), and the mix of values with the same weights. When best grows, what was
    # summed fades by exp(old - new).
    best = tl.full((BLOCK_Q,), -float("inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK_Q,), dtype=tl.float32)
    acc = tl.zeros((BLOCK_Q, BLOCK_C), dtype=tl.float32)
    for start in range(0, end, BLOCK_T):
        t = start + tl.arange(0, BLOCK_T)
        is_seen = t < end
        offset = base + t[:, None] * head_dim + c[None, :]
        mask = is_seen[:, None] & is_feature[None, :]
        keys = tl.load(keys_ptr + offset, mask=mask, other=0.0)
        scores = tl.dot(q, tl.trans(keys)) * scale
        scores = tl.where(is_seen[None, :], scores, -float("inf"))
        new_best = tl.maximum(best, tl.max(scores, axis=1))
        # Weights in float32; rounded to the values' type for the product only.
        shares = tl.exp(scores - new_best[:, None])
        fading = tl.exp(best - new_best)
        total = total * fading + tl.sum(shares, axis=1)
        values = tl.load(values_ptr + offset, mask=mask, other=0.0)
        acc = acc * fading[:, None] + tl.dot(shares.to(values.dtype), values)
        best = new_best
    mixed = acc / total[:, None]
    tl.store(mixed_ptr + offset_q, mixed.to(mixed_ptr.dtype.element_ty), mask=mask_q)
