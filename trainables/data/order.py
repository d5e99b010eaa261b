"""The common order of the training rows: one for all trials of a sweep.

Trials that see the same batches are comparable, and trials of a pack that stand at the same place
of the order share one tokenised batch. So the order depends on the data and on the sweep's seed
alone. Rows of one batch have similar lengths, which keeps padding low.
"""

from collections.abc import Sequence

import numpy as np

POOL_BATCHES = 50
"""Batches whose rows are sorted together. Sorting more pads less but mixes the rows less; 50 is
the pool of transformers' LengthGroupedSampler (trainer_pt_utils.get_length_grouped_indices)."""


def training_order(lengths: Sequence[int], batch_size: int, num_rows: int, seed: int) -> list[int]:
    """Indices of the first num_rows rows to train on.

    The order is endless: every epoch holds each row once, in a new permutation, and batch b is
    always rows [b * batch_size, (b + 1) * batch_size) of it, across the ends of epochs.

    Args:
        lengths: tokens of each row.
        batch_size: rows of one optimizer step.
        num_rows: how many indices are wanted; a longer order begins with every shorter one.
        seed: the sweep's seed.
    """
    if not lengths:
        raise ValueError("lengths is empty; it must hold at least one row")
    order: list[int] = []
    epoch = 0
    while len(order) < num_rows:
        order.extend(_epoch_order(lengths, batch_size, len(order), [seed, epoch]))
        epoch += 1
    return order[:num_rows]


def _epoch_order(
    lengths: Sequence[int], batch_size: int, start: int, seeds: list[int]
) -> list[int]:
    """One epoch that begins at place start of the order.

    The rows that complete the batch begun by the epoch before come first, so that all later
    chunks coincide with batches.
    """
    generator = np.random.default_rng(seeds)
    shuffled = generator.permutation(len(lengths)).tolist()
    head = min(-start % batch_size, len(shuffled))
    chunks = _length_grouped(shuffled[head:], lengths, batch_size)
    is_partial = bool(chunks) and len(chunks[-1]) < batch_size
    tail = chunks.pop() if is_partial else []
    mixed = [row for chunk in generator.permutation(len(chunks)) for row in chunks[chunk]]
    return [*shuffled[:head], *mixed, *tail]


def _length_grouped(rows: list[int], lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Batches of rows that are sorted by length within pools; only the last may be smaller."""
    pool = POOL_BATCHES * batch_size
    ordered = [
        row
        for begin in range(0, len(rows), pool)
        for row in sorted(rows[begin : begin + pool], key=lambda row: (-lengths[row], row))
    ]
    return [ordered[begin : begin + batch_size] for begin in range(0, len(ordered), batch_size)]
