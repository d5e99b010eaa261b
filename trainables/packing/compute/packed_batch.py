"""From each trial's rows to passes: all slots' rows end to end, with no padding between them.

Shapes: K slots, S rows, N tokens, L labels, B blocks of a pass. All four are rounded up where
shapes must be few; what fills them up belongs to no slot.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from trainables.data.tokens import Example
from trainables.packing.compute.kernels.inputs import (
    BLOCK_TOKENS,
    CHUNK_TOKENS,
    Chunks,
    Dropout,
    Segments,
)
from trainables.packing.compute.masks import row_key, threshold
from trainables.packing.compute.pass_shapes import (
    LABEL_SHARES,
    LEAST_LENGTH,
    ROWS_MULTIPLE,
    Rounding,
    Shape,
    round_up,
    round_up_to_bucket,
)

NO_SLOT = -1
"""Stands for the slot of tokens that fill up a pass."""
Item = TypeVar("Item")


@dataclass(frozen=True)
class MicroBatch:
    """Rows of one slot that go through the model together."""

    slot: int
    rows: Sequence[Example]
    first_row: int
    """Index of the first of them in the trial's effective batch."""
    seed: int
    step: int
    lora_dropout: float
    label_weight: float
    """One over the labels of the whole effective batch."""

    @property
    def num_tokens(self) -> int:
        """Tokens of its rows."""
        return sum(len(row.ids) for row in self.rows)


@dataclass(frozen=True)
class PackedBatch:
    """One pass as one row of numbers, so that one copy brings it to the device."""

    shape: Shape
    numbers: np.ndarray
    """int32; scales and label_weights are float32 bit by bit."""
    num_real: int
    """Tokens that are not there to fill up."""


class Rows(NamedTuple):
    """Where the rows of a pass begin and end."""

    bounds_S1: Tensor
    """int32, one more than rows: each row's first token, and the end of the last."""
    longest: int
    """T, or more."""
    chunks: Chunks


class PackedInputs(NamedTuple):
    """The tensors of one pass, views of its numbers."""

    ids_N: Tensor
    position_ids_N: Tensor
    """Each token's position in its row."""
    rows: Rows
    segments: Segments
    dropout: Dropout | None
    label_index_L: Tensor
    """For each label, the token whose logits predict it."""
    targets_L: Tensor
    label_slots_L: Tensor
    """Each label's slot; K where it is there to fill up."""
    label_weights_K: Tensor


def pad_rows(rows: Rows, num_tokens: int) -> tuple[Tensor, Tensor]:
    """Where each row's tokens are (S, T), and which of these places are of a row (S, T)."""
    first_S1, end_S1 = rows.bounds_S1[:-1, None].long(), rows.bounds_S1[1:, None]
    index_ST = first_S1 + torch.arange(rows.longest, device=first_S1.device)
    return index_ST.clamp(max=num_tokens - 1), index_ST < end_S1


def split_by_size(items: Sequence[Item], sizes: Sequence[int], most: int) -> list[list[Item]]:
    """The items in their order, as many together as most allows, one at least."""
    groups: list[list[Item]] = []
    room = 0
    for item, size in zip(items, sizes, strict=True):
        if size > room:
            groups.append([])
            room = most
        groups[-1].append(item)
        room -= size
    return groups


def shape_of(micro_batches: Sequence[MicroBatch], num_slots: int, rounding: Rounding) -> Shape:
    """The shape of these micro-batches' pass.

    Args:
        micro_batches: not empty.
        num_slots: K.
    """
    rows = [row for micro_batch in micro_batches for row in micro_batch.rows]
    longest_row = max(len(row.ids) for row in rows)
    tokens: dict[int, int] = {}
    for micro_batch in micro_batches:
        tokens[micro_batch.slot] = tokens.get(micro_batch.slot, 0) + micro_batch.num_tokens
    num_labels = sum(len(row.label_positions) for row in rows)
    num_tokens, num_rows = sum(tokens.values()), len(rows)
    has_dropout = any(micro_batch.lora_dropout for micro_batch in micro_batches)
    if rounding == "exact":  # nothing fills up
        longest = (longest_row, max(tokens.values()))
        return Shape(num_slots, num_tokens, num_rows, num_labels, *longest, has_dropout, False)
    recurs = rounding == "recurring"
    # CUDA graphs need equal shapes, so every size is rounded up to one of few.
    rounded = (round_up_to_bucket if recurs else round_up)(num_tokens, BLOCK_TOKENS)
    longest_row = max(LEAST_LENGTH, 1 << (longest_row - 1).bit_length())
    # What fills up the tokens is read as rows too, so that every token holds a finite number.
    num_rows += -(-(rounded - num_tokens) // longest_row)
    if recurs:
        num_rows = round_up_to_bucket(num_rows, ROWS_MULTIPLE)
        shares = (math.ceil(share * rounded) for share in LABEL_SHARES)
        num_labels = next(count for count in shares if count >= num_labels)
    sizes = (num_slots, rounded, num_rows, num_labels, longest_row, rounded)
    return Shape(*sizes, has_dropout, recurs)


def pack_batch(micro_batches: Sequence[MicroBatch], shape: Shape) -> PackedBatch:
    """The pass of these micro-batches, which are in the order of their slots.

    Args:
        micro_batches: not empty.
        shape: shape_of them, or one that holds it.
    """
    # One flat int32 array holds every part of the pass, so that one copy brings all to the device
    # and a captured graph has one input. parts are views of it, filled in place.
    rows = [row for micro_batch in micro_batches for row in micro_batch.rows]
    lengths = np.array([len(row.ids) for row in rows])
    num_real = int(lengths.sum())
    numbers = np.zeros(sum(shape.sizes.values()), dtype=np.int32)
    parts = _parts(numbers, shape)
    parts["ids"][:num_real] = np.concatenate([row.tokens for row in rows])
    # Behind the rows' lengths stand those of the rows that fill up the pass.
    filling = np.full(shape.num_rows - len(rows), shape.longest_row)
    ends = np.minimum(np.cumsum(np.concatenate([lengths, filling])), shape.num_tokens)
    # rows[0] stays 0: cu_seqlens of a varlen attention. The last row of all is empty.
    parts["rows"][1:-1], parts["rows"][-1] = ends, shape.num_tokens
    starts = np.concatenate([[0], ends[:-1]])
    firsts = np.repeat(starts, ends - starts)
    parts["position_ids"][:] = np.arange(shape.num_tokens) - firsts
    _fill_chunks(parts["chunks"].reshape(-1, 2), ends - starts)
    _fill_slots(parts, micro_batches)
    _fill_blocks(parts, num_real, shape.num_tokens)
    _fill_labels(parts, rows, starts, micro_batches, shape.num_slots, shape.num_tokens)
    return PackedBatch(shape, numbers, num_real)


def unpack_inputs(numbers: Tensor, shape: Shape) -> PackedInputs:
    """The tensors of a pass whose numbers are on the device."""
    parts = dict(zip(shape.sizes, torch.split(numbers, list(shape.sizes.values())), strict=True))
    floats = {name: parts[name].view(torch.float32) for name in ("scales", "label_weights")}
    slots_N = parts["slots"]
    dropout = Dropout(
        words_N2=parts["words"].view(-1, 2),
        position_ids_N=parts["position_ids"],
        slots_N=slots_N,
        thresholds_K=parts["thresholds"],
        scales_K=floats["scales"],
        known=None if numbers.is_cuda else {},
    )
    segments = Segments(
        parts["bounds"].view(-1, 2), parts["blocks"].view(-1, 3), slots_N, shape.longest_slot
    )
    return PackedInputs(
        ids_N=parts["ids"],
        position_ids_N=parts["position_ids"],
        rows=Rows(
            parts["rows"][:-1],
            shape.longest_row,
            Chunks(parts["rows"], parts["chunks"].view(-1, 2)),
        ),
        segments=segments,
        dropout=dropout if shape.has_dropout else None,
        label_index_L=parts["label_index"],
        targets_L=parts["targets"].long(),
        label_slots_L=parts["label_slots"],
        label_weights_K=floats["label_weights"],
    )


def _parts(numbers: np.ndarray, shape: Shape) -> dict[str, np.ndarray]:
    ends = np.cumsum(list(shape.sizes.values()))[:-1]
    return dict(zip(shape.sizes, np.split(numbers, ends), strict=True))


def _fill_chunks(pieces_X2: np.ndarray, lengths_S: np.ndarray) -> None:
    """Each row's pieces, and then those of the empty row behind the last."""
    counts = -(-lengths_S // CHUNK_TOKENS)
    num_pieces = int(counts.sum())
    pieces_X2[:] = (len(lengths_S), 0)
    pieces_X2[:num_pieces, 0] = np.repeat(np.arange(len(lengths_S)), counts)
    firsts = np.repeat(np.cumsum(counts) - counts, counts)
    pieces_X2[:num_pieces, 1] = np.arange(num_pieces) - firsts


def _fill_slots(parts: dict[str, np.ndarray], micro_batches: Sequence[MicroBatch]) -> None:
    """Where each slot's tokens are, and what its dropout is."""
    bounds, words = parts["bounds"].reshape(-1, 2), parts["words"].reshape(-1, 2)
    scales, weights = (parts[name].view(np.float32) for name in ("scales", "label_weights"))
    start = 0
    for micro_batch in micro_batches:
        end = start + micro_batch.num_tokens
        slot = micro_batch.slot
        # A slot may have several micro-batches in a pass; they are neighbours, so its bounds grow.
        bounds[slot] = (bounds[slot, 0] if bounds[slot, 1] else start, end)
        parts["slots"][start:end] = slot
        parts["thresholds"][slot] = threshold(micro_batch.lora_dropout)
        scales[slot] = 1.0 / (1.0 - micro_batch.lora_dropout)
        weights[slot] = micro_batch.label_weight
        # The row's number in the effective batch makes the key, not its place in the pass, so that
        # a trial drops the same however its batch is cut.
        if micro_batch.lora_dropout:
            numbers = range(micro_batch.first_row, micro_batch.first_row + len(micro_batch.rows))
            keys = [row_key(micro_batch.seed, micro_batch.step, number) for number in numbers]
            lengths = [len(row.ids) for row in micro_batch.rows]
            words[start:end] = np.repeat(keys, lengths, axis=0)
        start = end


def _fill_blocks(parts: dict[str, np.ndarray], num_real: int, num_tokens: int) -> None:
    """Each slot's tokens in blocks, and then what fills up the pass."""
    # A program of a kernel reads one block, so it meets one slot only. A slot's last block may be
    # short; the list's end stays (0, 0, 0), which is empty.
    bounds_K2 = parts["bounds"].reshape(-1, 2).tolist()
    ranges = [(slot, *bounds) for slot, bounds in enumerate(bounds_K2)]
    blocks = [
        (slot, begin, min(begin + BLOCK_TOKENS, end))
        for slot, first, end in [*ranges, (NO_SLOT, num_real, num_tokens)]
        for begin in range(first, end, BLOCK_TOKENS)
    ]
    parts["blocks"][: 3 * len(blocks)] = np.array(blocks).reshape(-1)


def _fill_labels(
    parts: dict[str, np.ndarray],
    rows: Sequence[Example],
    starts: np.ndarray,
    micro_batches: Sequence[MicroBatch],
    num_slots: int,
    num_tokens: int,
) -> None:
    # The logits at token i predict token i + 1.
    counts = [len(row.label_positions) for row in rows]
    num_labels = sum(counts)
    positions = np.concatenate([row.label_positions for row in rows])
    # What fills up points everywhere: a token that many point at sums their gradients one by one.
    parts["label_index"][:] = np.arange(len(parts["label_index"])) % num_tokens
    parts["label_index"][:num_labels] = np.repeat(starts[: len(rows)], counts) + positions - 1
    parts["targets"][:num_labels] = np.concatenate(
        [row.tokens[row.label_positions] for row in rows]
    )
    row_slots = [micro_batch.slot for micro_batch in micro_batches for _ in micro_batch.rows]
    parts["label_slots"][:] = num_slots
    parts["label_slots"][:num_labels] = np.repeat(row_slots, counts)
