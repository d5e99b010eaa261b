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

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from trainables.packing.compute.masks import KEEP_BITS, LAST_SHIFT, ROUNDS, Dropout
from trainables.packing.compute.packed_batch import Segments
from trainables.packing.compute.pass_shapes import BLOCK_TOKENS

SHIFT_1, FACTOR_1 = tl.constexpr(ROUNDS[0][0]), tl.constexpr(ROUNDS[0][1])
SHIFT_2, FACTOR_2 = tl.constexpr(ROUNDS[1][0]), tl.constexpr(ROUNDS[1][1])
SHIFT_3 = tl.constexpr(LAST_SHIFT)
MOST_TOKENS = tl.constexpr(BLOCK_TOKENS)
"""Tokens of a block of the pass; a kernel whose tile has fewer shares a block among programs."""
HALF = tl.constexpr(KEEP_BITS)
BUSY_PROGRAMS, MOST_PARTS = 1024, 16
"""Programs that keep a GPU's 132 multiprocessors busy to the end; a sum is cut to have as many."""
ADD_BLOCK = 1024
"""Numbers of one slot that one program of _add_parts works on."""
MIN_RANK = 16
"""The smallest side of a matrix that tensor cores multiply."""


class Tile(NamedTuple):
    """What one program of a kernel works on at a time."""

    block_tokens: int
    block_features: int
    num_warps: int
    num_stages: int


SHRINK, SHRINK_DROPPING = Tile(64, 128, 4, 3), Tile(64, 64, 4, 3)
EXPAND, EXPAND_DROPPING = Tile(64, 128, 4, 3), Tile(64, 64, 4, 3)
WEIGHT_GRAD, WEIGHT_GRAD_DROPPING = Tile(32, 64, 4, 3), Tile(64, 64, 4, 3)
"""The fastest of eight tiles each on an H200 (torch 2.11, 2026-11-29), at ranks 16 and 64 and 1024
to 9728 features. Masks take registers, hence the smaller tiles of the dropping ones."""


def lora_shrink(
    x_NF: Tensor,
    weights_KMRF: Tensor,
    segments: Segments,
    scaling_K: Tensor | None,
    dropout: Dropout | None,
    keys_M2: Tensor | None,
) -> Tensor:
    """segments.lora_shrink on a GPU: a program a block of tokens and module."""
    _, num_modules, rank, num_features = weights_KMRF.shape
    inner_MNR = x_NF.new_empty(num_modules, len(x_NF), rank)
    tile = SHRINK if dropout is None else SHRINK_DROPPING
    _shrink[(_num_programs(segments, tile), num_modules)](
        x_NF,
        weights_KMRF,
        inner_MNR,
        segments.blocks_B3,
        *_extras(segments, scaling_K, dropout, keys_M2),
        num_features,
        rank,
        x_NF.stride(0),
        inner_MNR.stride(0),
        *weights_KMRF.stride(),
        **_options(x_NF, rank, scaling_K, dropout, tile),
    )
    return inner_MNR


def lora_expand(
    y_NF: Tensor,
    inner_MNR: Tensor,
    weights_KMRF: Tensor,
    segments: Segments,
    scaling_K: Tensor | None,
    dropout: Dropout | None,
    keys_M2: Tensor | None,
) -> None:
    """segments.lora_expand on a GPU: a program a block of tokens and block of features."""
    _, num_modules, rank, num_features = weights_KMRF.shape
    tile = EXPAND if dropout is None else EXPAND_DROPPING
    grid = (_num_programs(segments, tile), triton.cdiv(num_features, tile.block_features))
    _expand[grid](
        y_NF,
        inner_MNR,
        weights_KMRF,
        segments.blocks_B3,
        *_extras(segments, scaling_K, dropout, keys_M2),
        num_features,
        rank,
        y_NF.stride(0),
        inner_MNR.stride(0),
        *weights_KMRF.stride(),
        **_options(y_NF, rank, scaling_K, dropout, tile),
        NUM_MODULES=num_modules,
    )


def lora_weight_grad_(
    grads_KMRF: Tensor,
    inner_MNR: Tensor,
    x_NF: Tensor,
    segments: Segments,
    scaling_K: Tensor | None,
    dropout: Dropout | None,
    keys_M2: Tensor | None,
) -> None:
    """segments.lora_weight_grad_ on a GPU: a program a slot, part, block of features and module."""
    num_slots, num_modules, _, num_features = grads_KMRF.shape
    tile = WEIGHT_GRAD if dropout is None else WEIGHT_GRAD_DROPPING
    num_blocks = triton.cdiv(num_features, tile.block_features)
    # One program a tile of the gradient would leave most of a GPU idle where slots and modules are
    # few: the sum over a slot's tokens is then cut into parts ("split-K"). Each part is written to
    # its own room and _add_parts sums them in their order, so that the rounding is always the same.
    num_parts = min(MOST_PARTS, max(1, BUSY_PROGRAMS // (num_slots * num_blocks * num_modules)))
    if num_parts > 1:
        sums = _parts_like(grads_KMRF, num_parts)
        _weight_grad_parts(sums, inner_MNR, x_NF, segments, scaling_K, dropout, keys_M2, tile)
        size = grads_KMRF[0].numel()
        _add_parts[(num_slots, triton.cdiv(size, ADD_BLOCK))](
            grads_KMRF,
            sums,
            segments.bounds_K2,
            grads_KMRF.stride(0),
            num_slots * size,
            size,
            num_parts,
            ADD_BLOCK,
        )
    else:
        _weight_grad_parts(
            grads_KMRF[None], inner_MNR, x_NF, segments, scaling_K, dropout, keys_M2, tile
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


def _weight_grad_parts(
    sums_SKMRF: Tensor,
    inner_MNR: Tensor,
    x_NF: Tensor,
    segments: Segments,
    scaling_K: Tensor | None,
    dropout: Dropout | None,
    keys_M2: Tensor | None,
    tile: Tile,
) -> None:
    """Write S parts of the sum over each slot's tokens, or add to it if it is one."""
    num_parts, num_slots, num_modules, rank, num_features = sums_SKMRF.shape
    num_blocks = triton.cdiv(num_features, tile.block_features)
    _weight_grad[(num_slots * num_parts, num_blocks, num_modules)](
        sums_SKMRF,
        inner_MNR,
        x_NF,
        segments.bounds_K2,
        *_extras(segments, scaling_K, dropout, keys_M2),
        num_features,
        rank,
        x_NF.stride(0),
        inner_MNR.stride(0),
        *sums_SKMRF.stride(),
        **_options(x_NF, rank, scaling_K, dropout, tile),
        NUM_PARTS=num_parts,
    )


def _num_programs(segments: Segments, tile: Tile) -> int:
    return len(segments.blocks_B3) * (BLOCK_TOKENS // tile.block_tokens)


def _extras(
    segments: Segments, scaling_K: Tensor | None, dropout: Dropout | None, keys_M2: Tensor | None
) -> tuple[Tensor, ...]:
    """Pointers that every kernel takes; blocks stand in for those that it will not read."""
    blocks = segments.blocks_B3
    scaling = (blocks if scaling_K is None else scaling_K,)
    if dropout is None or keys_M2 is None:
        return (*scaling, blocks, blocks, blocks, blocks, blocks)
    return (
        *scaling,
        dropout.words_N2,
        dropout.position_ids_N,
        dropout.thresholds_K,
        dropout.scales_K,
        keys_M2,
    )


def _options(
    x: Tensor, rank: int, scaling_K: Tensor | None, dropout: Dropout | None, tile: Tile
) -> dict[str, Any]:
    return {
        "scaling_stride": 0 if scaling_K is None else scaling_K.stride(0),
        "HAS_SCALING": scaling_K is not None,
        "HAS_DROPOUT": dropout is not None,
        "PRECISION": "ieee" if x.dtype == torch.float32 else "tf32",
        "BLOCK_N": tile.block_tokens,
        "BLOCK_F": tile.block_features,
        "BLOCK_R": max(MIN_RANK, triton.next_power_of_2(rank)),
        "num_warps": tile.num_warps,
        "num_stages": tile.num_stages,
    }


@triton.jit
def _shrink(
    x_ptr,
    w_ptr,
    out_ptr,
    blocks_ptr,
    scaling_ptr,
    words_ptr,
    positions_ptr,
    thresholds_ptr,
    scales_ptr,
    keys_ptr,
    num_features,
    rank,
    x_stride,
    inner_stride,
    w_stride_k,
    w_stride_m,
    w_stride_r,
    w_stride_f,
    scaling_stride,
    HAS_SCALING: tl.constexpr,
    HAS_DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """scaling * (drop(x) A^T) of one block of tokens and one module; all ranks fit in one tile."""
    module = tl.program_id(1)
    slot, first, end = _load_block(blocks_ptr, BLOCK_N)
    # Blocks that fill up the list are empty; tokens that fill up the pass have no slot, and their
    # inner products are never read.
    if (first < end) & (slot >= 0):
        n = first + tl.arange(0, BLOCK_N)
        r = tl.arange(0, BLOCK_R)
        # int64, because tokens times features may pass 2^31.
        x_tile = x_ptr + n.to(tl.int64)[:, None] * x_stride
        w_tile = w_ptr + slot * w_stride_k + module * w_stride_m + r[None, :] * w_stride_r
        threshold = _load_threshold(thresholds_ptr, slot, HAS_DROPOUT)
        factor = _load_factor(
            scaling_ptr + slot * scaling_stride, scales_ptr + slot, HAS_SCALING, HAS_DROPOUT
        )
        # Slots with and without dropout share a pass. The loop is compiled twice and chosen once a
        # program, so that a slot without dropout makes no hashes; n stands in for unread words.
        if threshold > 0:
            row, word, other = _load_words(
                n, n < end, num_features, words_ptr, positions_ptr, keys_ptr + 2 * module
            )
            acc = _shrink_tile(
                x_tile,
                w_tile,
                n < end,
                r < rank,
                row,
                word,
                other,
                threshold,
                num_features,
                w_stride_f,
                True,
                PRECISION,
                BLOCK_N,
                BLOCK_F,
                BLOCK_R,
            )
        else:
            acc = _shrink_tile(
                x_tile,
                w_tile,
                n < end,
                r < rank,
                n,
                n,
                n,
                threshold,
                num_features,
                w_stride_f,
                False,
                PRECISION,
                BLOCK_N,
                BLOCK_F,
                BLOCK_R,
            )
        out = out_ptr + module * inner_stride + n.to(tl.int64)[:, None] * rank + r[None, :]
        mask = (n < end)[:, None] & (r < rank)[None, :]
        # Scaled once at the end: dropout's 1 / (1 - p) and alpha / rank are the same for all terms.
        tl.store(out, (acc * factor).to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _shrink_tile(
    x_tile,
    w_tile,
    is_token,
    is_rank,
    row,
    word,
    other,
    threshold,
    num_features,
    w_stride_f,
    IS_DROPPING: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """(BLOCK_N, BLOCK_R): tokens of one slot times one of its matrices, summed over features."""
    # Sums in float32. The adapters are float32 in memory and rounded to x's type for the product,
    # as autocast does for PEFT.
    acc = tl.zeros((BLOCK_N, BLOCK_R), dtype=tl.float32)
    for start in range(0, num_features, BLOCK_F):
        f = start + tl.arange(0, BLOCK_F)
        is_feature = f < num_features
        x = tl.load(x_tile + f[None, :], mask=is_token[:, None] & is_feature[None, :], other=0.0)
        if IS_DROPPING:
            x = _drop_masked(x, row, word, other, start, threshold, BLOCK_F)
        w = tl.load(
            w_tile + f[:, None].to(tl.int64) * w_stride_f,
            mask=is_feature[:, None] & is_rank[None, :],
            other=0.0,
        )
        acc += tl.dot(x, w.to(x.dtype), input_precision=PRECISION)
    return acc


@triton.jit
def _expand(
    y_ptr,
    inner_ptr,
    w_ptr,
    blocks_ptr,
    scaling_ptr,
    words_ptr,
    positions_ptr,
    thresholds_ptr,
    scales_ptr,
    keys_ptr,
    num_features,
    rank,
    y_stride,
    inner_stride,
    w_stride_k,
    w_stride_m,
    w_stride_r,
    w_stride_f,
    scaling_stride,
    HAS_SCALING: tl.constexpr,
    HAS_DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCK_R: tl.constexpr,
    NUM_MODULES: tl.constexpr,
):
    """drop(scaling * (inner A)), summed over modules, of one block of tokens and of features."""
    slot, first, end = _load_block(blocks_ptr, BLOCK_N)
    # Unlike in _shrink, tokens without a slot are written too, as zeros: y is not cleared before,
    # and the base's product is added to it.
    if first < end:
        n = first + tl.arange(0, BLOCK_N)
        r = tl.arange(0, BLOCK_R)
        start = tl.program_id(1) * BLOCK_F
        f = start + tl.arange(0, BLOCK_F)
        is_token, is_rank, is_feature = n < end, r < rank, f < num_features
        total = tl.zeros((BLOCK_N, BLOCK_F), dtype=tl.float32)
        if slot >= 0:
            threshold = _load_threshold(thresholds_ptr, slot, HAS_DROPOUT)
            factor = _load_factor(
                scaling_ptr + slot * scaling_stride, scales_ptr + slot, HAS_SCALING, HAS_DROPOUT
            )
            # In the forward pass there is one module and no dropout. In the backward pass q, k and
            # v (or gate and up) share an input, so their gradients add up here, each with the mask
            # that its own module drew.
            for module in tl.static_range(NUM_MODULES):
                inner = tl.load(
                    inner_ptr + module * inner_stride + n.to(tl.int64)[:, None] * rank + r[None, :],
                    mask=is_token[:, None] & is_rank[None, :],
                    other=0.0,
                )
                w = tl.load(
                    w_ptr
                    + slot * w_stride_k
                    + module * w_stride_m
                    + r[:, None] * w_stride_r
                    + f[None, :].to(tl.int64) * w_stride_f,
                    mask=is_rank[:, None] & is_feature[None, :],
                    other=0.0,
                )
                product = tl.dot(inner, w.to(inner.dtype), input_precision=PRECISION)
                if threshold > 0:
                    row, word, other = _load_words(
                        n, is_token, num_features, words_ptr, positions_ptr, keys_ptr + 2 * module
                    )
                    product = _drop_masked(product, row, word, other, start, threshold, BLOCK_F)
                total += product
            total *= factor
        y = y_ptr + n.to(tl.int64)[:, None] * y_stride + f[None, :]
        mask = is_token[:, None] & is_feature[None, :]
        tl.store(y, total.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _weight_grad(
    grads_ptr,
    inner_ptr,
    x_ptr,
    bounds_ptr,
    scaling_ptr,
    words_ptr,
    positions_ptr,
    thresholds_ptr,
    scales_ptr,
    keys_ptr,
    num_features,
    rank,
    x_stride,
    inner_stride,
    g_stride_s,
    g_stride_k,
    g_stride_m,
    g_stride_r,
    g_stride_f,
    scaling_stride,
    HAS_SCALING: tl.constexpr,
    HAS_DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCK_R: tl.constexpr,
    NUM_PARTS: tl.constexpr,
):
    """scaling * (inner^T drop(x)) of one slot, part of its tokens, module and block of features."""
    slot, part = (tl.program_id(0) // NUM_PARTS).to(tl.int64), tl.program_id(0) % NUM_PARTS
    module = tl.program_id(2)
    first, end = tl.load(bounds_ptr + 2 * slot), tl.load(bounds_ptr + 2 * slot + 1)
    # A slot that trains writes every part, be it zero, because _add_parts reads all of them; a slot
    # without tokens in this pass keeps the gradient of the passes before.
    if first < end:
        # Equal shares in whole blocks, so that a part's bounds depend on the slot's tokens alone.
        share = tl.cdiv(tl.cdiv(end - first, NUM_PARTS), BLOCK_N) * BLOCK_N
        first, end = first + part * share, tl.minimum(end, first + (part + 1) * share)
        r = tl.arange(0, BLOCK_R)
        start = tl.program_id(1) * BLOCK_F
        f = start + tl.arange(0, BLOCK_F)
        is_rank, is_feature = r < rank, f < num_features
        inner_tile = inner_ptr + module * inner_stride + r[:, None]
        key_ptr = keys_ptr + 2 * module
        threshold = _load_threshold(thresholds_ptr, slot, HAS_DROPOUT)
        if threshold > 0:
            acc = _weight_grad_tile(
                inner_tile,
                x_ptr,
                first,
                end,
                f,
                is_rank,
                is_feature,
                rank,
                x_stride,
                start,
                threshold,
                num_features,
                words_ptr,
                positions_ptr,
                key_ptr,
                True,
                PRECISION,
                BLOCK_N,
                BLOCK_F,
                BLOCK_R,
            )
        else:
            acc = _weight_grad_tile(
                inner_tile,
                x_ptr,
                first,
                end,
                f,
                is_rank,
                is_feature,
                rank,
                x_stride,
                start,
                threshold,
                num_features,
                words_ptr,
                positions_ptr,
                key_ptr,
                False,
                PRECISION,
                BLOCK_N,
                BLOCK_F,
                BLOCK_R,
            )
        acc *= _load_factor(
            scaling_ptr + slot * scaling_stride, scales_ptr + slot, HAS_SCALING, HAS_DROPOUT
        )
        grads = (
            grads_ptr
            + part * g_stride_s
            + slot * g_stride_k
            + module * g_stride_m
            + r[:, None] * g_stride_r
            + f[None, :].to(tl.int64) * g_stride_f
        )
        mask = is_rank[:, None] & is_feature[None, :]
        if NUM_PARTS == 1:  # grads itself, to which the pass is added
            acc += tl.load(grads, mask=mask, other=0.0)
        tl.store(grads, acc, mask=mask)


@triton.jit
def _add_parts(
    grads_ptr,
    sums_ptr,
    bounds_ptr,
    g_stride_k,
    part_size,
    size,
    NUM_PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add the parts of a slot's sums, in their order; a slot without tokens has none."""
    slot = tl.program_id(0).to(tl.int64)
    if tl.load(bounds_ptr + 2 * slot) < tl.load(bounds_ptr + 2 * slot + 1):
        p = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        is_there = p < size
        sums = sums_ptr + slot * size + p
        total = tl.load(sums, mask=is_there, other=0.0)
        for part in range(1, NUM_PARTS):
            total += tl.load(sums + part * tl.cast(part_size, tl.int64), mask=is_there, other=0.0)
        grads = grads_ptr + slot * g_stride_k + p
        tl.store(grads, tl.load(grads, mask=is_there, other=0.0) + total, mask=is_there)


@triton.jit
def _weight_grad_tile(
    inner_tile,
    x_ptr,
    first,
    end,
    f,
    is_rank,
    is_feature,
    rank,
    x_stride,
    start,
    threshold,
    num_features,
    words_ptr,
    positions_ptr,
    key_ptr,
    IS_DROPPING: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """(BLOCK_R, BLOCK_F): inner products of a slot's tokens, transposed, times their inputs."""
    acc = tl.zeros((BLOCK_R, BLOCK_F), dtype=tl.float32)
    for begin in range(first, end, BLOCK_N):
        n = begin + tl.arange(0, BLOCK_N)
        is_token = n < end
        rows = n.to(tl.int64)
        # Loaded as (r, n): transposing while loading is free, tl.trans would shuffle registers.
        inner = tl.load(
            inner_tile + rows[None, :] * rank, mask=is_token[None, :] & is_rank[:, None], other=0.0
        )
        x = tl.load(
            x_ptr + rows[:, None] * x_stride + f[None, :],
            mask=is_token[:, None] & is_feature[None, :],
            other=0.0,
        )
        if IS_DROPPING:
            row, word, other = _load_words(
                n, is_token, num_features, words_ptr, positions_ptr, key_ptr
            )
            x = _drop_masked(x, row, word, other, start, threshold, BLOCK_F)
        acc += tl.dot(inner, x, input_precision=PRECISION)
    return acc


@triton.jit
def _load_threshold(thresholds_ptr, slot, HAS_DROPOUT: tl.constexpr):
    """The slot's dropout threshold; 0 if it drops nothing, and then no mask is made."""
    threshold = tl.cast(0, tl.int32)
    if HAS_DROPOUT:
        threshold = tl.load(thresholds_ptr + slot)
    return threshold


@triton.jit
def _load_factor(scaling_ptr, scale_ptr, HAS_SCALING: tl.constexpr, HAS_DROPOUT: tl.constexpr):
    """What the whole product is multiplied by, dropout's scale included."""
    factor = 1.0
    if HAS_SCALING:
        factor *= tl.load(scaling_ptr).to(tl.float32)
    if HAS_DROPOUT:
        factor *= tl.load(scale_ptr)
    return factor


@triton.jit
def _load_words(n, is_token, num_features, words_ptr, positions_ptr, key_ptr):
    """What masks._hash takes of each token: the first of its counters, and both words."""
    row = tl.load(positions_ptr + n, mask=is_token, other=0) * num_features
    words = words_ptr + 2 * n
    word = _mix_words(tl.load(words, mask=is_token, other=0) ^ tl.load(key_ptr))
    other = _mix_words(tl.load(words + 1, mask=is_token, other=0) ^ tl.load(key_ptr + 1))
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
def _load_block(blocks_ptr, BLOCK_N: tl.constexpr):
    """The slot and tokens of a program: its share of one block of the pass."""
    # The host's blocks have MOST_TOKENS tokens; a kernel with smaller tiles runs several programs
    # on each. The last ones of a short block start behind its end and have nothing to do.
    shares: tl.constexpr = MOST_TOKENS // BLOCK_N
    block = blocks_ptr + 3 * (tl.program_id(0) // shares)
    first = tl.load(block + 1) + tl.program_id(0) % shares * BLOCK_N
    return tl.load(block).to(tl.int64), first, tl.load(block + 2)
