"""The products of segments.py as Triton kernels: one pass over the inputs, dropout made on the way.

The scheme is that of multi-LoRA serving (Punica, arXiv 2310.18547, and vLLM's lora_shrink and
lora_expand), with the gradient of the weights and dropout added. A program works on tokens of one
slot alone: the host cuts each slot's tokens into blocks (packed_batch), so no program has to search
for its slot and none meets two. Nothing is summed atomically, so the numbers of a slot do not
depend on its neighbours and repeat exactly. A library's grouped GEMM would have to be given a
dropped copy of x for each module, which is what is saved here.

Shapes, in tensors' names: K slots, N tokens of a pass, F features, M modules that share an input,
R rank, B blocks, S parts of a sum. In kernels: n tokens, f features, r ranks of one program's tile.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from trainables.packing.compute.kernels.inputs import (
    BLOCK_TOKENS,
    KEEP_BITS,
    LAST_SHIFT,
    ROUNDS,
    Dropout,
    Segments,
)

SHIFT_1, FACTOR_1 = tl.constexpr(ROUNDS[0][0]), tl.constexpr(ROUNDS[0][1])
SHIFT_2, FACTOR_2 = tl.constexpr(ROUNDS[1][0]), tl.constexpr(ROUNDS[1][1])
SHIFT_3 = tl.constexpr(LAST_SHIFT)
HALF = tl.constexpr(KEEP_BITS)
BUSY_PROGRAMS, MOST_PARTS = 1024, 16
"""Programs that keep a GPU's 132 multiprocessors busy to the end; a sum is cut to have as many."""
ADD_BLOCK = tl.constexpr(1024)
"""Numbers of one slot that one program of _add_parts works on."""
MIN_RANK = 16
"""The smallest side of a matrix that tensor cores multiply."""
SHRINK = EXPAND = (BLOCK_TOKENS, 128), (BLOCK_TOKENS, 64)
WEIGHT_GRAD = (32, 64), (64, 64)
"""Tokens and features of a tile, without and with dropout: the fastest of eight tiles each on an
H200 (torch 2.11, 2026-11-29), at ranks 16 and 64 and 1024 to 9728 features. Masks take registers,
hence the smaller tiles of the dropping ones. So are WARPS."""
WARPS = {"num_warps": 4, "num_stages": 3}


class Tile(NamedTuple):
    """What one program of a kernel works on at a time."""

    tokens: tl.constexpr
    features: tl.constexpr
    ranks: tl.constexpr
    precision: tl.constexpr


# The kernels' arguments. Triton takes a named tuple apart: each number of it is specialised as if
# it were an argument of its own.
class _Tokens(NamedTuple):
    ptr: Tensor
    """(N, F), the features of a token side by side."""
    stride: int


class _Inner(NamedTuple):
    ptr: Tensor
    """(M, N, R), the ranks of a token side by side, and the tokens of a module."""
    by_module: int


class _Matrices(NamedTuple):
    ptr: Tensor
    """(K, M, R, F), with any strides."""
    by_slot: int
    by_module: int
    by_rank: int
    by_feature: int
    rank: int
    num_features: int


class _Scaling(NamedTuple):
    ptr: Tensor
    """(K,)"""
    stride: int


class _Masks(NamedTuple):
    """The tensors of a Dropout, and the keys (M, 2) of the modules."""

    words: Tensor
    position_ids: Tensor
    thresholds: Tensor
    scales: Tensor
    keys: Tensor


def lora_shrink(
    x_NF: Tensor,
    weights_KMRF: Tensor,
    segments: Segments,
    scaling_K: Tensor | None = None,
    dropout: Dropout | None = None,
    keys_M2: Tensor | None = None,
) -> Tensor:
    """segments.lora_shrink on a GPU: a program a block of tokens and module."""
    _, num_modules, rank, _ = weights_KMRF.shape
    inner_MNR = x_NF.new_empty(num_modules, len(x_NF), rank)
    operands = _operands(x_NF, inner_MNR, weights_KMRF, scaling_K, dropout, keys_M2)
    tile = _tile(SHRINK, x_NF, rank, dropout)
    _shrink[(len(segments.blocks_B3), num_modules)](*operands, segments.blocks_B3, tile, **WARPS)
    return inner_MNR


def lora_expand(
    y_NF: Tensor,
    inner_MNR: Tensor,
    weights_KMRF: Tensor,
    segments: Segments,
    scaling_K: Tensor | None = None,
    dropout: Dropout | None = None,
    keys_M2: Tensor | None = None,
) -> None:
    """segments.lora_expand on a GPU: a program a block of tokens and block of features."""
    _, num_modules, rank, num_features = weights_KMRF.shape
    operands = _operands(y_NF, inner_MNR, weights_KMRF, scaling_K, dropout, keys_M2)
    tile = _tile(EXPAND, y_NF, rank, dropout)
    grid = (len(segments.blocks_B3), triton.cdiv(num_features, tile.features.value))
    _expand[grid](*operands, segments.blocks_B3, num_modules, tile, **WARPS)


def lora_weight_grad_(
    grads_KMRF: Tensor,
    inner_MNR: Tensor,
    x_NF: Tensor,
    segments: Segments,
    scaling_K: Tensor | None = None,
    dropout: Dropout | None = None,
    keys_M2: Tensor | None = None,
) -> None:
    """segments.lora_weight_grad_ on a GPU: a program a slot, part, block of features and module."""
    num_slots, num_modules, rank, num_features = grads_KMRF.shape
    tile = _tile(WEIGHT_GRAD, x_NF, rank, dropout)
    num_blocks = triton.cdiv(num_features, tile.features.value)
    # One program a tile of the gradient would leave most of a GPU idle where slots and modules are
    # few: the sum over a slot's tokens is then cut into parts ("split-K"). Each part is written to
    # its own room and _add_parts sums them in their order, so that the rounding is always the same.
    num_parts = min(MOST_PARTS, max(1, BUSY_PROGRAMS // (num_slots * num_blocks * num_modules)))
    sums_SKMRF = grads_KMRF[None] if num_parts == 1 else _parts_like(grads_KMRF, num_parts)
    operands = _operands(x_NF, inner_MNR, sums_SKMRF[0], scaling_K, dropout, keys_M2)
    by_part, bounds_K2 = sums_SKMRF.stride(0), segments.bounds_K2
    _weight_grad[(num_slots * num_parts, num_blocks, num_modules)](
        *operands, by_part, bounds_K2, num_parts, tile, **WARPS
    )
    if num_parts > 1:
        size = grads_KMRF[0].numel()
        _add_parts[(num_slots, triton.cdiv(size, ADD_BLOCK.value))](
            grads_KMRF, sums_SKMRF, bounds_K2, grads_KMRF.stride(0), by_part, size, num_parts
        )


def _parts_like(grads_KMRF: Tensor, num_parts: int) -> Tensor:
    """Room for S parts (S, K, M, R, F), of each slot's numbers in the order of grads in memory, in
    which they have no gaps."""
    num_slots, num_modules, rank, num_features = grads_KMRF.shape
    size = num_modules * rank * num_features
    # The gradients of A are (R, F) in memory, those of B (F, R) seen transposed. With the strides
    # of grads the parts lie like them, so that _add_parts can walk both as flat arrays.
    by_module, by_rank, by_feature = grads_KMRF.stride()[1:]
    if num_modules == 1:  # the stride of a dimension of one is arbitrary
        by_module = size
    has_no_gaps = {by_rank, by_feature} in ({num_features, 1}, {1, rank})
    assert has_no_gaps and by_module * num_modules == size
    room = grads_KMRF.new_empty(num_parts, num_slots, size)
    strides = (num_slots * size, size, by_module, by_rank, by_feature)
    return room.as_strided((num_parts, *grads_KMRF.shape), strides)


def _operands(
    x_NF: Tensor,
    inner_MNR: Tensor,
    weights_KMRF: Tensor,
    scaling_K: Tensor | None,
    dropout: Dropout | None,
    keys_M2: Tensor | None,
) -> tuple[_Tokens, _Inner, _Matrices, _Scaling | None, _Masks | None]:
    """What every kernel begins with; what is None is not compiled into it."""
    masks = None
    if dropout is not None and keys_M2 is not None:
        words_N2, position_ids_N, _, thresholds_K, scales_K, _ = dropout
        masks = _Masks(words_N2, position_ids_N, thresholds_K, scales_K, keys_M2)
    return (
        _Tokens(x_NF, x_NF.stride(0)),
        _Inner(inner_MNR, inner_MNR.stride(0)),
        _Matrices(weights_KMRF, *weights_KMRF.stride(), *weights_KMRF.shape[2:]),
        None if scaling_K is None else _Scaling(scaling_K, scaling_K.stride(0)),
        masks,
    )


def _tile(
    sizes: tuple[tuple[int, int], tuple[int, int]], x: Tensor, rank: int, dropout: Dropout | None
) -> Tile:
    tokens, features = sizes[dropout is not None]
    ranks = max(MIN_RANK, triton.next_power_of_2(rank))  # all in one tile
    precision = "ieee" if x.dtype == torch.float32 else "tf32"
    return Tile(*map(tl.constexpr, (tokens, features, ranks, precision)))


@triton.jit
def _shrink(x, inner, weights, scaling, masks, blocks_ptr, tile):
    """scaling * (drop(x) A^T) of one block of tokens and one module."""
    module = tl.program_id(1)
    slot, first, end = _load_block(blocks_ptr)
    # Blocks that fill up the list are empty; tokens that fill up the pass have no slot, and their
    # inner products are never read.
    if (first < end) & (slot >= 0):
        n = first + tl.arange(0, tile.tokens)
        r = tl.arange(0, tile.ranks)
        is_token, is_rank = n < end, r < weights.rank
        # int64, because tokens times features may pass 2^31.
        x_tile = x.ptr + n.to(tl.int64)[:, None] * x.stride
        w_tile = _point_to_matrix(weights, slot, module) + r[None, :] * weights.by_rank
        # Slots with and without dropout share a pass. The loop is compiled twice and chosen once a
        # program, so that a slot without dropout makes no hashes.
        threshold = _load_threshold(masks, slot)
        if threshold > 0:
            acc = _shrink_tile(
                x_tile, w_tile, weights, masks, module, threshold, n, is_token, is_rank, tile
            )
        else:
            acc = _shrink_tile(
                x_tile, w_tile, weights, None, module, threshold, n, is_token, is_rank, tile
            )
        # Scaled once at the end: dropout's 1 / (1 - p) and alpha / rank are the same for all terms.
        acc *= _load_factor(scaling, masks, slot)
        out = _point_to_inner(inner, module, n, r, weights.rank)
        is_inner = is_token[:, None] & is_rank[None, :]
        tl.store(out, acc.to(inner.ptr.dtype.element_ty), mask=is_inner)


@triton.jit
def _shrink_tile(x_tile, w_tile, weights, masks, module, threshold, n, is_token, is_rank, tile):
    """(tokens, ranks): tokens of one slot times one of its matrices, summed over features."""
    if masks is not None:
        row, word, other = _load_words(masks, module, n, is_token, weights.num_features)
    # Sums in float32. The adapters are float32 in memory and rounded to x's type for the product,
    # as autocast does for PEFT.
    acc = tl.zeros((tile.tokens, tile.ranks), dtype=tl.float32)
    for start in range(0, weights.num_features, tile.features):
        f = start + tl.arange(0, tile.features)
        is_feature = f < weights.num_features
        is_input = is_token[:, None] & is_feature[None, :]
        x_NF = tl.load(x_tile + f[None, :], mask=is_input, other=0.0)
        if masks is not None:
            x_NF = _drop_masked(x_NF, row, word, other, start, threshold, tile.features)
        w_ptr = w_tile + f[:, None].to(tl.int64) * weights.by_feature
        is_weight = is_feature[:, None] & is_rank[None, :]
        w_FR = tl.load(w_ptr, mask=is_weight, other=0.0)
        acc += tl.dot(x_NF, w_FR.to(x_NF.dtype), input_precision=tile.precision)
    return acc


@triton.jit
def _expand(y, inner, weights, scaling, masks, blocks_ptr, NUM_MODULES: tl.constexpr, tile):
    """drop(scaling * (inner A)), summed over modules, of one block of tokens and of features."""
    slot, first, end = _load_block(blocks_ptr)
    # Unlike in _shrink, tokens without a slot are written too, as zeros: y is not cleared before,
    # and the base's product is added to it.
    if first < end:
        n = first + tl.arange(0, tile.tokens)
        r = tl.arange(0, tile.ranks)
        start = tl.program_id(1) * tile.features
        f = start + tl.arange(0, tile.features)
        is_token, is_rank, is_feature = n < end, r < weights.rank, f < weights.num_features
        total = tl.zeros((tile.tokens, tile.features), dtype=tl.float32)
        if slot >= 0:
            threshold = _load_threshold(masks, slot)
            factor = _load_factor(scaling, masks, slot)
            # In the forward pass there is one module and no dropout. In the backward pass q, k and
            # v (or gate and up) share an input, so their gradients add up here, each with the mask
            # that its own module drew.
            for module in tl.static_range(NUM_MODULES):
                inner_ptr = _point_to_inner(inner, module, n, r, weights.rank)
                is_inner = is_token[:, None] & is_rank[None, :]
                inner_NR = tl.load(inner_ptr, mask=is_inner, other=0.0)
                w_tile = _point_to_matrix(weights, slot, module) + r[:, None] * weights.by_rank
                w_ptr = w_tile + f[None, :].to(tl.int64) * weights.by_feature
                w_RF = tl.load(w_ptr, mask=is_rank[:, None] & is_feature[None, :], other=0.0)
                product = tl.dot(inner_NR, w_RF.to(inner_NR.dtype), input_precision=tile.precision)
                if masks is not None and threshold > 0:
                    row, word, other = _load_words(masks, module, n, is_token, weights.num_features)
                    product = _drop_masked(
                        product, row, word, other, start, threshold, tile.features
                    )
                total += product
            total *= factor
        y_ptr = y.ptr + n.to(tl.int64)[:, None] * y.stride + f[None, :]
        mask = is_token[:, None] & is_feature[None, :]
        tl.store(y_ptr, total.to(y.ptr.dtype.element_ty), mask=mask)


@triton.jit
def _weight_grad(
    x, inner, grads, scaling, masks, by_part, bounds_ptr, NUM_PARTS: tl.constexpr, tile
):
    """scaling * (inner^T drop(x)) of one slot, part of its tokens, module and block of features."""
    slot, part = (tl.program_id(0) // NUM_PARTS).to(tl.int64), tl.program_id(0) % NUM_PARTS
    module = tl.program_id(2)
    first, end = tl.load(bounds_ptr + 2 * slot), tl.load(bounds_ptr + 2 * slot + 1)
    # A slot that trains writes every part, be it zero, because _add_parts reads all of them; a slot
    # without tokens in this pass keeps the gradient of the passes before.
    if first < end:
        # Equal shares in whole blocks, so that a part's bounds depend on the slot's tokens alone.
        share = tl.cdiv(tl.cdiv(end - first, NUM_PARTS), tile.tokens) * tile.tokens
        first, end = first + part * share, tl.minimum(end, first + (part + 1) * share)
        r = tl.arange(0, tile.ranks)
        start = tl.program_id(1) * tile.features
        f = start + tl.arange(0, tile.features)
        threshold = _load_threshold(masks, slot)
        if threshold > 0:
            acc = _weight_grad_tile(
                x, inner, grads, masks, module, threshold, first, end, r, start, f, tile
            )
        else:
            acc = _weight_grad_tile(
                x, inner, grads, None, module, threshold, first, end, r, start, f, tile
            )
        acc *= _load_factor(scaling, masks, slot)
        grads_tile = grads.ptr + part * by_part + slot * grads.by_slot + module * grads.by_module
        grads_ptr = (
            grads_tile + r[:, None] * grads.by_rank + f[None, :].to(tl.int64) * grads.by_feature
        )
        mask = (r < grads.rank)[:, None] & (f < grads.num_features)[None, :]
        if NUM_PARTS == 1:  # grads itself, to which the pass is added
            acc += tl.load(grads_ptr, mask=mask, other=0.0)
        tl.store(grads_ptr, acc, mask=mask)


@triton.jit
def _weight_grad_tile(x, inner, grads, masks, module, threshold, first, end, r, start, f, tile):
    """(ranks, features): inner products of a slot's tokens, transposed, times their inputs."""
    is_rank, is_feature = r < grads.rank, f < grads.num_features
    inner_tile = inner.ptr + module * inner.by_module + r[:, None]
    acc = tl.zeros((tile.ranks, tile.features), dtype=tl.float32)
    for begin in range(first, end, tile.tokens):
        n = begin + tl.arange(0, tile.tokens)
        is_token = n < end
        rows = n.to(tl.int64)
        # Loaded as (r, n): transposing while loading is free, tl.trans would shuffle registers.
        is_inner = is_token[None, :] & is_rank[:, None]
        inner_RN = tl.load(inner_tile + rows[None, :] * grads.rank, mask=is_inner, other=0.0)
        is_input = is_token[:, None] & is_feature[None, :]
        x_ptr = x.ptr + rows[:, None] * x.stride + f[None, :]
        x_NF = tl.load(x_ptr, mask=is_input, other=0.0)
        if masks is not None:
            row, word, other = _load_words(masks, module, n, is_token, grads.num_features)
            x_NF = _drop_masked(x_NF, row, word, other, start, threshold, tile.features)
        acc += tl.dot(inner_RN, x_NF, input_precision=tile.precision)
    return acc


@triton.jit
def _add_parts(grads_ptr, sums_ptr, bounds_ptr, by_slot, by_part, size, NUM_PARTS: tl.constexpr):
    """Add the parts of a slot's sums, in their order; a slot without tokens has none."""
    slot = tl.program_id(0).to(tl.int64)
    if tl.load(bounds_ptr + 2 * slot) < tl.load(bounds_ptr + 2 * slot + 1):
        p = tl.program_id(1) * ADD_BLOCK + tl.arange(0, ADD_BLOCK)
        is_there = p < size
        sums = sums_ptr + slot * size + p
        total = tl.load(sums, mask=is_there, other=0.0)
        for part in range(1, NUM_PARTS):
            total += tl.load(sums + part * tl.cast(by_part, tl.int64), mask=is_there, other=0.0)
        grads = grads_ptr + slot * by_slot + p
        tl.store(grads, tl.load(grads, mask=is_there, other=0.0) + total, mask=is_there)


@triton.jit
def _point_to_matrix(weights, slot, module):
    """One slot's matrix of one module."""
    return weights.ptr + slot * weights.by_slot + module * weights.by_module


@triton.jit
def _point_to_inner(inner, module, n, r, rank):
    """(tokens, ranks) of the inner products of one module."""
    return inner.ptr + module * inner.by_module + n.to(tl.int64)[:, None] * rank + r[None, :]


@triton.jit
def _load_threshold(masks, slot):
    """The slot's dropout threshold; 0 if it drops nothing, and then no mask is made."""
    threshold = tl.cast(0, tl.int32)
    if masks is not None:
        threshold = tl.load(masks.thresholds + slot)
    return threshold


@triton.jit
def _load_factor(scaling, masks, slot):
    """What the whole product is multiplied by, dropout's scale included."""
    factor = 1.0
    if scaling is not None:
        factor *= tl.load(scaling.ptr + slot * scaling.stride).to(tl.float32)
    if masks is not None:
        factor *= tl.load(masks.scales + slot)
    return factor


@triton.jit
def _load_words(masks, module, n, is_token, num_features):
    """What masks._hash takes of each token: the first of its counters, and both words."""
    row = tl.load(masks.position_ids + n, mask=is_token, other=0) * num_features
    words, key = masks.words + 2 * n, masks.keys + 2 * module
    word = _mix_words(tl.load(words, mask=is_token, other=0) ^ tl.load(key))
    other = _mix_words(tl.load(words + 1, mask=is_token, other=0) ^ tl.load(key + 1))
    return row, word, other


@triton.jit
def _drop_masked(x, row, word, other, start, threshold, BLOCK_F: tl.constexpr):
    """A tile from feature start without what masks.keep_mask drops; it is not scaled yet."""
    # One hash a pair of neighbouring features: its counter is position * num_features + pair,
    # hashed as masks._hash does it. uint32 wraps around as torch's int32 does.
    pair = start // 2 + tl.arange(0, BLOCK_F // 2)
    bits = (row[:, None] + pair[None, :]).to(tl.uint32, bitcast=True) ^ word[:, None]
    bits = (bits ^ (bits >> SHIFT_1)) * FACTOR_1 + other[:, None]
    bits = (bits ^ (bits >> SHIFT_2)) * FACTOR_2
    bits = bits ^ (bits >> SHIFT_3)
    # The low 16 bits decide about the even feature, the high 16 about the odd one. Both are
    # compared in the high half; what stands below it cannot change a comparison with
    # threshold << 16.
    is_kept = tl.interleave(bits << HALF, bits) >= (threshold.to(tl.uint32) << HALF)
    return tl.where(is_kept, x, 0.0).to(x.dtype)


@triton.jit
def _mix_words(x):
    """masks._mix: lowbias32 of a word."""
    bits = x.to(tl.uint32, bitcast=True)
    bits = (bits ^ (bits >> SHIFT_1)) * FACTOR_1
    bits = (bits ^ (bits >> SHIFT_2)) * FACTOR_2
    return bits ^ (bits >> SHIFT_3)


@triton.jit
def _load_block(blocks_ptr):
    """The slot and tokens of a program."""
    block = blocks_ptr + 3 * tl.program_id(0)
    return tl.load(block).to(tl.int64), tl.load(block + 1), tl.load(block + 2)
