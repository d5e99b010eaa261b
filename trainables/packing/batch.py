"""From each trial's rows in the common order to one padded batch of the whole pack.

Shapes: K slots, U distinct groups of rows among them, S rows of a slot, T tokens of a row (a
multiple of TOKENS_MULTIPLE), L labelled positions of a slot (a multiple of LABELS_MULTIPLE).
"""

import dataclasses
from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

from trainables.batches import Batches
from trainables.config import TrainingSettings
from trainables.examples import IGNORED, Example
from trainables.packing.masks import row_key
from trainables.packing.transfer import moved

TOKENS_MULTIPLE = 64
"""Rows are padded to a multiple of it: at 1024 tokens at most, 16 shapes to compile."""
LABELS_MULTIPLE = 32


class Course:
    """A trial's way through the common order, from an offset.

    Step s of the trial has the rows of step offset + s of the order, which is endless.
    """

    def __init__(
        self, examples: Sequence[Example], settings: TrainingSettings, offset: int
    ) -> None:
        num_steps = offset + settings.max_steps
        longer = dataclasses.replace(settings, max_steps=num_steps, rungs=(num_steps,))
        self.offset = offset
        self.order_key = order_key(examples, settings)
        self._batches = Batches(examples, longer)

    def step_rows(self, step: int) -> list[Example]:
        """Examples of the trial's step-th optimizer step, counted from 1."""
        return self._batches.step_rows(self.offset + step)

    def tokens(self, step: int) -> int:
        """Real tokens of the trial's first step steps."""
        return self._batches.tokens(self.offset + step) - self._batches.tokens(self.offset)

    def epoch(self, step: int) -> float:
        """Passes over the rows after the trial's first step steps."""
        return self._batches.epoch(step)


def order_key(examples: Sequence[Example], settings: TrainingSettings) -> Hashable:
    """Trials with equal keys go the same way, as long as the examples live."""
    return (id(examples), settings.batch_size, settings.seed)


@dataclasses.dataclass(frozen=True)
class Part:
    """What one slot brings to a micro-batch."""

    rows: Sequence[Example]
    first_row: int
    """Place of the first of them in the trial's effective batch."""
    seed: int
    step: int
    shared_key: Hashable
    """Parts with equal keys have the same rows."""
    label_weight: float
    """One over the labels of the whole effective batch, whatever its micro-batches."""


@dataclasses.dataclass(frozen=True)
class MicroBatch:
    """The tensors of one forward pass; a slot without rows is all padding."""

    input_ids_KST: Tensor
    label_places_KL: Tensor
    """For each label, the place among the slot's S * T tokens whose logits predict it."""
    targets_KL: Tensor
    """Labels, and IGNORED where a slot has fewer."""
    label_weights_K: Tensor
    """What a label counts in its slot's loss."""
    row_keys_KS2: Tensor
    """Dropout's words of each row."""
    num_tokens: int
    """Real tokens."""

    @property
    def real_frac(self) -> float:
        """Real tokens over all places that are computed."""
        return self.num_tokens / self.input_ids_KST.numel()


def assemble(parts: Sequence[Part | None], num_rows: int, device: torch.device) -> MicroBatch:
    """One batch of num_rows rows for every slot; parts that share rows share their tokens."""
    present = [part for part in parts if part is not None]
    unique = list({part.shared_key: part.rows for part in present}.items())
    order = {key: place for place, (key, _) in enumerate(unique)}
    nothing = len(unique)
    index_K = torch.tensor([nothing if p is None else order[p.shared_key] for p in parts])
    row_groups = [rows for _, rows in unique] + [[]]
    tokens_UST, places_UL, targets_UL = _padded(row_groups, num_rows)
    keys_KS2 = torch.tensor([_row_keys(part, num_rows) for part in parts], dtype=torch.int32)
    weights_K = torch.tensor([0.0 if part is None else part.label_weight for part in parts])
    index_K = moved(index_K, device)
    return MicroBatch(
        input_ids_KST=moved(tokens_UST, device)[index_K],
        label_places_KL=moved(places_UL, device)[index_K],
        targets_KL=moved(targets_UL, device)[index_K],
        label_weights_K=moved(weights_K, device),
        row_keys_KS2=moved(keys_KS2, device),
        num_tokens=sum(len(row.input_ids) for part in present for row in part.rows),
    )


def round_up(count: int, multiple: int) -> int:
    """The smallest multiple that is not below count, and not 0."""
    return max(1, -(-count // multiple)) * multiple


def _padded(row_groups: list[Sequence[Example]], num_rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (U, S, T), and places and targets (U, L) of the labels, of the distinct groups."""
    longest = max((len(row.input_ids) for rows in row_groups for row in rows), default=0)
    most = max(sum(len(row.target_ids) for row in rows) for rows in row_groups)
    num_tokens = round_up(longest, TOKENS_MULTIPLE)
    num_labels = round_up(most, LABELS_MULTIPLE)
    tokens = np.zeros((len(row_groups), num_rows, num_tokens), dtype=np.int64)
    places = np.zeros((len(row_groups), num_labels), dtype=np.int64)
    targets = np.full((len(row_groups), num_labels), IGNORED, dtype=np.int64)
    for group, rows in enumerate(row_groups):
        filled = 0
        for place, row in enumerate(rows):
            tokens[group, place, : len(row.input_ids)] = row.input_ids
            end = filled + len(row.target_ids)
            first = place * num_tokens + len(row.prompt_ids) - 1
            places[group, filled:end] = np.arange(first, first + len(row.target_ids))
            targets[group, filled:end] = row.target_ids
            filled = end
    return torch.from_numpy(tokens), torch.from_numpy(places), torch.from_numpy(targets)


def _row_keys(part: Part | None, num_rows: int) -> list[tuple[int, int]]:
    if part is None:
        return [(0, 0)] * num_rows
    return [row_key(part.seed, part.step, part.first_row + row) for row in range(num_rows)]
