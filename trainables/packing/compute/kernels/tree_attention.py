"""Attention of a tree of labels behind each prompt, as a Triton kernel.

A node sees its row's prompt, its ancestors and itself. The tree is one for all rows, so no row has
a mask of its own, and nodes that none of a block's nodes descends from are not read: in depth-first
order ancestors stand near.

Shapes: B rows of N nodes, A = B * N nodes of all rows, H query heads, G key heads, C features of a
head; T positions of a prompt.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from trainables.packing.compute.kernels.token_attention import held_positions


def tree_attention(
    q_AHC: Tensor,
    k_AGC: Tensor,
    v_AGC: Tensor,
    prompts: tuple[Tensor, Tensor],
    lengths_S: Tensor,
    is_seen_NN: Tensor,
) -> Tensor:
    """(A, H, C): every node over its row's prompt and the nodes that it sees.

    The features of a position lie side by side everywhere.

    Args:
        prompts: keys and values (K, S, G, T, C) of equal strides; B = K * S.
        lengths_S: tokens of each prompt, one at least.
        is_seen_NN: what each node (row) sees of the tree, itself included.
    """
    keys, values = prompts
    (num_slots, num_rows), (num_nodes, _) = keys.shape[:2], is_seen_NN.shape
    (_, num_heads, head_dim), num_key_heads = q_AHC.shape, k_AGC.shape[1]
    assert keys.stride() == values.stride() and keys.stride(4) == 1
    assert k_AGC.stride()[1:] == v_AGC.stride()[1:] == (head_dim, 1)
    q_AHC = q_AHC.contiguous()
    mixed_AHC = torch.empty_like(q_AHC)
    shared = num_heads // num_key_heads
    first_N = is_seen_NN.int().argmax(dim=1)
    block_c = max(16, triton.next_power_of_2(head_dim))
    block = held_positions(block_c)  # as many queries: all those of a key head, node by node
    grid = (triton.cdiv(num_nodes * shared, block), num_key_heads, num_slots * num_rows)
    _attend[grid](
        *(q_AHC, k_AGC, v_AGC, keys, values, lengths_S, is_seen_NN.view(torch.uint8), first_N),
        *(mixed_AHC, head_dim**-0.5, k_AGC.stride(0), v_AGC.stride(0), *keys.stride()[:4]),
        *(num_rows, num_nodes, shared, head_dim, block, block, block_c),
    )
    return mixed_AHC


@triton.jit
def _attend(
    q_ptr,
    k_ptr,
    v_ptr,
    keys_ptr,
    values_ptr,
    lengths_ptr,
    is_seen_ptr,
    first_ptr,
    mixed_ptr,
    scale,
    k_stride,
    v_stride,
    slot_stride,
    row_stride,
    head_stride,
    position_stride,
    num_rows,
    num_nodes,
    shared,
    head_dim,
    BLOCK_Q: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """One row and one key head: some nodes' query heads that share it, as the rows of a matrix."""
    head, row = tl.program_id(1), tl.program_id(2).to(tl.int64)
    number = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    node = number // shared
    is_query = node < num_nodes
    c = tl.arange(0, BLOCK_C)
    is_feature = (c < head_dim)[None, :]
    first_head = (row * num_nodes + node) * tl.num_programs(1) + head
    offset_q = (first_head * shared + number % shared)[:, None] * head_dim + c[None, :]
    mask_q = is_query[:, None] & is_feature
    q = tl.load(q_ptr + offset_q, mask=mask_q, other=0.0)
    # Online softmax, as in token_attention. Every query sees the prompt's first token, so best is
    # finite from the first block on.
    best = tl.full((BLOCK_Q,), -float("inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK_Q,), dtype=tl.float32)
    acc = tl.zeros((BLOCK_Q, BLOCK_C), dtype=tl.float32)
    length = tl.load(lengths_ptr + row % num_rows).to(tl.int32)
    base = (row // num_rows) * slot_stride + (row % num_rows) * row_stride + head * head_stride
    for start in range(0, length, BLOCK_T):
        t = start + tl.arange(0, BLOCK_T)
        mask = (t < length)[:, None] & is_feature
        offset = base + t[:, None] * position_stride + c[None, :]
        keys = tl.load(keys_ptr + offset, mask=mask, other=0.0)
        values = tl.load(values_ptr + offset, mask=mask, other=0.0)
        is_seen = (t < length)[None, :] & (number >= 0)[:, None]
        best, total, acc = _add_block(q, keys, values, is_seen, best, total, acc, scale)
    # Parents come before their children: from the first ancestor of any of these nodes to the last
    # of the nodes themselves.
    first = tl.min(tl.load(first_ptr + node, mask=is_query, other=num_nodes).to(tl.int32))
    end = tl.minimum(tl.max(node) + 1, num_nodes)
    for start in range(first, end, BLOCK_T):
        t = start + tl.arange(0, BLOCK_T)
        mask = (t < end)[:, None] & is_feature
        token = row * num_nodes + t
        offset = (head * head_dim + c)[None, :]
        keys = tl.load(k_ptr + token[:, None] * k_stride + offset, mask=mask, other=0.0)
        values = tl.load(v_ptr + token[:, None] * v_stride + offset, mask=mask, other=0.0)
        is_pair = is_query[:, None] & (t < end)[None, :]
        offset_seen = node[:, None] * num_nodes + t[None, :]
        is_seen = tl.load(is_seen_ptr + offset_seen, mask=is_pair, other=0) != 0
        best, total, acc = _add_block(q, keys, values, is_seen, best, total, acc, scale)
    mixed = acc / total[:, None]
    tl.store(mixed_ptr + offset_q, mixed.to(mixed_ptr.dtype.element_ty), mask=mask_q)


@triton.jit
def _add_block(q, keys, values, is_seen, best, total, acc, scale):
    """The softmax's state with some more keys."""
    scores = tl.where(is_seen, tl.dot(q, tl.trans(keys)) * scale, -float("inf"))
    new_best = tl.maximum(best, tl.max(scores, axis=1))
    # Weights in float32; rounded to the values' type for the product only.
    shares = tl.exp(scores - new_best[:, None])
    fading = tl.exp(best - new_best)
    total = total * fading + tl.sum(shares, axis=1)
    acc = acc * fading[:, None] + tl.dot(shares.to(values.dtype), values)
    return new_best, total, acc
