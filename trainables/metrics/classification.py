"""Accuracy, F1, Matthews correlation and confusion of chosen labels. Loads nothing heavy.

The numbers are scikit-learn's with zero_division=0, so that none is ever NaN: a class that is
never predicted has precision 0, one that never occurs has recall 0, and either has F1 0. macro_f1
is the mean over the classes that occur in the targets or the predictions; the Matthews correlation
is 0 where it has no value, which is where all targets or all predictions are one class.
"""

import math
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from trainables.files import write_table

PER_CLASS = ("precision", "recall", "f1")
MAX_REPORTED_LABELS = 20
"""With more labels, reports hold the scores of single ones only where they are asked for."""
LETTERS = str.maketrans(
    {"\N{LATIN SMALL LETTER DOTLESS I}": "i", "ß": "ss", "ø": "o", "æ": "ae", "ł": "l"}
)
"""Letters that no decomposition brings to ASCII."""


def classification_scores(
    predictions: Sequence[str],
    targets: Sequence[str],
    labels: Sequence[str],
    asked: Collection[str] = (),
) -> dict[str, float]:
    """accuracy, macro_f1 (0 to 100), mcc (-1 to 1), and each class's scores (0 to 100).

    A class's scores are precision_NAME, recall_NAME and f1_NAME with the NAME of label_names. Of
    more than MAX_REPORTED_LABELS classes only those in asked are there.

    Raises:
        ValueError: no rows, unlike numbers of rows, or a prediction or target that is no label.
    """
    table = confusion(predictions, targets, labels)
    if not targets:
        raise ValueError("no rows: a score needs at least one prediction and its target")
    right, occurring, predicted = table.sums()
    of_classes = table.class_scores()
    pairs = zip(of_classes, occurring, predicted, strict=True)
    present = [own[-1] for own, seen, chosen in pairs if seen or chosen]
    single = {
        f"{kind}_{name}": score
        for name, own in zip(label_names(labels).values(), of_classes, strict=True)
        for kind, score in zip(PER_CLASS, own, strict=True)
        if len(labels) <= MAX_REPORTED_LABELS or f"{kind}_{name}" in asked
    }
    return {
        "accuracy": _percent(sum(right), len(targets)),
        "macro_f1": sum(present) / len(present),
        "mcc": _matthews(right, occurring, predicted),
        **single,
    }


def label_names(labels: Sequence[str]) -> dict[str, str]:
    """Names of the labels within keys: ASCII letters, digits and _, told apart in any case.

    W&B takes no other characters in a metric's name, and a CSV header needs no quotes. A label
    without a letter or digit of ASCII, or whose name is taken, gets its number among the labels.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for index, label in enumerate(labels):
        plain = unicodedata.normalize("NFKD", label.translate(LETTERS))
        ascii_text = plain.encode("ascii", "ignore").decode()
        name = re.sub(r"[^A-Za-z0-9]+", "_", ascii_text).strip("_") or f"class_{index}"
        while name.lower() in taken:
            name += f"_{index}"
        taken.add(name.lower())
        names[label] = name
    return names


@dataclass(frozen=True)
class Confusion:
    """Counts by target (rows) and prediction (columns), in the order of the labels."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    def sums(self) -> tuple[list[int], list[int], list[int]]:
        """How many rows of each class are right, have it as their target, and are taken for it."""
        right = [row[index] for index, row in enumerate(self.counts)]
        return right, list(map(sum, self.counts)), list(map(sum, zip(*self.counts, strict=True)))

    def class_scores(self) -> list[tuple[float, ...]]:
        """Each class's precision, recall and F1, 0 to 100."""
        return [
            (
                _percent(hits, chosen),
                _percent(hits, seen),
                _percent(2 * hits, seen + chosen),
            )
            for hits, seen, chosen in zip(*self.sums(), strict=True)
        ]

    def scores_as_csv(self) -> str:
        """A header, then a line a class with its rows and scores."""
        rows = zip(self.labels, self.sums()[1], self.class_scores(), strict=True)
        lines = ([label, num, *own] for label, num, own in rows)
        return write_table([["label", "rows", *PER_CLASS], *lines])

    def as_csv(self) -> str:
        """A header with the predictions' labels, then a line a target."""
        header = ["target", *(f"predicted {label}" for label in self.labels)]
        rows = zip(self.labels, self.counts, strict=True)
        return write_table([header, *([label, *row] for label, row in rows)])


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


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 0.0


def _matthews(right: Sequence[int], occurring: Sequence[int], predicted: Sequence[int]) -> float:
    """Gorodkin's R_K, in whole numbers up to the last division."""
    rows = sum(occurring)
    covariance = sum(right) * rows - sum(t * p for t, p in zip(occurring, predicted, strict=True))
    spread = (rows**2 - sum(t * t for t in occurring)) * (rows**2 - sum(p * p for p in predicted))
    return covariance / math.sqrt(spread) if spread else 0.0
