"""A trial's training rows, laid out for a sequential sampler in an order common to its sweep.

Trials that see the same batches are comparable, and trials of a pack that stand at the same place
of the order share one tokenised batch. So the order depends on the data and on the sweep's seed
alone. Rows of one batch have similar lengths, which keeps padding low.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from trainables.config import TrainingSettings
from trainables.data.tokens import Example

if TYPE_CHECKING:
    import datasets

POOL_BATCHES = 50
"""Batches whose rows are sorted together. Sorting more pads less but mixes the rows less; 50 is
the pool of transformers' LengthGroupedSampler (trainer_pt_utils.get_length_grouped_indices)."""


class Batches:
    """The examples of every step of a trial; which they are depends on the sweep alone."""

    def __init__(self, examples: Sequence[Example], settings: TrainingSettings) -> None:
        lengths = [len(example.ids) for example in examples]
        num_rows = settings.max_steps * settings.batch_size
        self.order = order_rows(lengths, settings.batch_size, num_rows, settings.seed)
        self.longest = max(lengths)
        """Tokens of the longest row."""
        self._examples = examples
        self._batch_size = settings.batch_size
        self._tokens = [0, *accumulate(lengths[row] for row in self.order)]

    def get_step_rows(self, step: int) -> list[Example]:
        """Examples of the step-th optimizer step, counted from 1."""
        end = step * self._batch_size
        return [self._examples[row] for row in self.order[end - self._batch_size : end]]

    def count_tokens(self, step: int) -> int:
        """Real tokens of the first step steps."""
        return self._tokens[step * self._batch_size]

    def compute_epoch(self, step: int) -> float:
        """Passes over the rows after the first step steps."""
        return step * self._batch_size / len(self._examples)

    def make_dataset(self) -> "datasets.Dataset":
        """All steps' rows in order, as token columns that SFTTrainer takes as they are."""
        import datasets  # half a second to load, and a pack does without

        columns = {
            "input_ids": [example.input_ids for example in self._examples],
            "labels": [example.labels for example in self._examples],
        }
        return datasets.Dataset.from_dict(columns).select(self.order)


def order_rows(lengths: Sequence[int], batch_size: int, num_rows: int, seed: int) -> list[int]:
    """Indices of the first num_rows rows to train on.

    The order is endless: every epoch holds each row once, in a new permutation, and batch b is
    always rows [b * batch_size, (b + 1) * batch_size) of it, across the ends of epochs.

    Args:
        lengths: tokens of each row.
        num_rows: how many indices are wanted; a longer order begins with every shorter one.
    """
    if not lengths:
        raise ValueError("lengths is empty; it must hold at least one row")
    order: list[int] = []
    epoch = 0
    while len(order) < num_rows:
        order.extend(_order_epoch(lengths, batch_size, len(order), [seed, epoch]))
        epoch += 1
    return order[:num_rows]


def _order_epoch(
    lengths: Sequence[int], batch_size: int, start: int, seeds: list[int]
) -> list[int]:
    """One epoch that begins at place start of the order.

    The rows that complete the batch begun by the epoch before come first, so that all later
    chunks coincide with batches. Their rows are sorted by length within pools.
    """
    generator = np.random.default_rng(seeds)
    shuffled = generator.permutation(len(lengths)).tolist()
    head = min(-start % batch_size, len(shuffled))
    rows, pool = shuffled[head:], POOL_BATCHES * batch_size
    ordered = [
        row
        for begin in range(0, len(rows), pool)
        for row in sorted(rows[begin : begin + pool], key=lambda row: (-lengths[row], row))
    ]
    chunks = [ordered[begin : begin + batch_size] for begin in range(0, len(ordered), batch_size)]
    is_partial = bool(chunks) and len(chunks[-1]) < batch_size
    tail = chunks.pop() if is_partial else []
    mixed = [row for chunk in generator.permutation(len(chunks)) for row in chunks[chunk]]
    return [*shuffled[:head], *mixed, *tail]
