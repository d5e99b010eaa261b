"""Which labels are taken for which: a table of counts, and the same as CSV. Loads nothing heavy."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Confusion:
    """Counts by target (rows) and prediction (columns), in the order of the labels."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    def as_csv(self) -> str:
        """A header with the predictions' labels, then a line a target."""
        text = io.StringIO()
        table = csv.writer(text)
        table.writerow(["target", *(f"predicted {label}" for label in self.labels)])
        for label, row in zip(self.labels, self.counts, strict=True):
            table.writerow([label, *row])
        return text.getvalue()


def confusion(
    predictions: Sequence[str], targets: Sequence[str], labels: Sequence[str]
) -> Confusion:
    """How often each target got each prediction.

    Raises:
        ValueError: unlike numbers of rows, a label named twice, or a text that is no label.
    """
    index_of = {label: index for index, label in enumerate(labels)}
    if not index_of or len(index_of) < len(labels):
        raise ValueError(f"labels {list(labels)}: name each class once, and at least one")
    if len(predictions) != len(targets):
        raise ValueError(f"{len(predictions)} predictions for {len(targets)} targets")
    unknown = sorted({*predictions, *targets} - index_of.keys())
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of the labels {list(labels)}: add it to them")
    table = [[0] * len(labels) for _ in labels]
    for prediction, target in zip(predictions, targets, strict=True):
        table[index_of[target]][index_of[prediction]] += 1
    return Confusion(tuple(labels), tuple(map(tuple, table)))
