"""Sizes of a pass, few enough to be captured as CUDA graphs, and the choice among captured ones.

Imports neither torch nor Ray.
"""

from collections import Counter
from collections.abc import Collection
from typing import Literal, NamedTuple

from trainables.packing.compute.kernels.inputs import BLOCK_TOKENS, CHUNK_TOKENS

Rounding = Literal["exact", "recurring", "fine"]
"""Sizes of a pass: as they are; rounded up so that few shapes recur, which can be captured; or
rounded up to what the kernels like."""

STEPS_AN_OCTAVE = 8
"""Sizes of a recurring pass between two powers of two. What fills it up is some 4% of it: 0.96 of
all tokens were real on SAMSum rows."""
LABEL_SHARES = (1 / 16, 3 / 32, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1)
"""Labels of a pass go up to one of these shares of its tokens: most passes of a task have one."""
ROWS_MULTIPLE, LEAST_LENGTH = 8, 256
"""What attention computes for nothing grows with both: a row more costs as much as 128 tokens."""
MAX_TOKENS_RATIO, MAX_ROWS_RATIO, MAX_LABELS_RATIO = 1.25, 1.5, 2.0
"""How much larger a pass may be made to have a shape that was captured before."""
CHUNK_LABELS = 2048
"""Positions whose logits are held together: 2048 * 151936 float32 logits are 1.2 GiB."""
PROMPT_TOKENS = 1 << 16
"""Tokens that are computed together while prompts are read, whatever the cache can hold: as many as
in a training step of 16 slots, 8 rows and 512 tokens."""
TOKENS_MULTIPLE = 64
"""Positions of the cache's rows are a multiple of it, for few shapes."""
PATIENCE = 8
"""Passes of one shape that are filled up to a larger one which is captured. Capturing takes as long
as dozens of passes of a small model, and as trials come and go most shapes are met a few times: of
a sweep's 396 on SAMSum rows 108 are captured, for 3% more tokens."""


class Shape(NamedTuple):
    """What decides every tensor's shape: passes of equal shape share a CUDA graph."""

    num_slots: int
    num_tokens: int
    num_rows: int
    num_labels: int
    longest_row: int
    longest_slot: int
    has_dropout: bool
    recurs: bool

    @property
    def sizes(self) -> dict[str, int]:
        """Numbers of each part of the table, in its order."""
        num_blocks = self.num_tokens // BLOCK_TOKENS + self.num_slots + 1
        tokens, slots, labels = self.num_tokens, self.num_slots, self.num_labels
        return {
            "ids": tokens,
            "position_ids": tokens,
            "slots": tokens,
            "words": 2 * tokens,
            "rows": self.num_rows + 2,
            "bounds": 2 * slots,
            "blocks": 3 * num_blocks,
            "label_index": labels,
            "targets": labels,
            "label_slots": labels,
            "thresholds": slots,
            "scales": slots,
            "label_weights": slots,
            "chunks": 2 * (tokens // CHUNK_TOKENS + self.num_rows),
        }

    def holds(self, other: "Shape") -> bool:
        """Whether a pass of the other shape may be filled up to this one, at little cost."""
        more_rows = -(-(self.num_tokens - other.num_tokens) // self.longest_row)
        return (
            (self.num_slots, self.has_dropout) == (other.num_slots, other.has_dropout)
            and other.num_tokens <= self.num_tokens <= MAX_TOKENS_RATIO * other.num_tokens
            and other.num_rows + more_rows <= self.num_rows
            and self.num_rows <= MAX_ROWS_RATIO * other.num_rows + ROWS_MULTIPLE
            and other.num_labels <= self.num_labels <= MAX_LABELS_RATIO * other.num_labels
            and other.longest_row <= self.longest_row
        )


class ShapeChoice:
    """Chooses captured shapes for passes, and says when a new one is worth its capture."""

    def __init__(self) -> None:
        self._num_wanted: Counter[Shape] = Counter()

    def among(self, captured: Collection[Shape], wanted: Shape) -> Shape:
        """The wanted shape, or the smallest captured one that holds it, PATIENCE times."""
        if wanted in captured:
            return wanted
        self._num_wanted[wanted] += 1
        larger = [shape for shape in captured if shape.holds(wanted)]
        if not larger or self._num_wanted[wanted] > PATIENCE:
            return wanted
        return min(larger)


def round_up(count: int, multiple: int) -> int:
    """The smallest multiple that is not below count, and not 0."""
    return max(1, -(-count // multiple)) * multiple


def round_up_to_bucket(count: int, least_step: int) -> int:
    """One of a few sizes, STEPS_AN_OCTAVE of them between two powers of two."""
    step = max(least_step, (1 << (count.bit_length() - 1)) // STEPS_AN_OCTAVE)
    return round_up(count, step)
