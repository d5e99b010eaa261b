"""Accuracy, F1, Matthews correlation and confusion of chosen labels. Loads nothing heavy.

The numbers are scikit-learn's with zero_division=0, so that none is ever NaN: a class that is
never predicted has precision 0, one that never occurs has recall 0, and either has F1 0. macro_f1
is the mean over the classes that occur in the targets or the predictions; the Matthews correlation
is 0 where it has no value, which is where all targets or all predictions are one class.
"""

import csv
import io
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

PER_CLASS = ("precision", "recall", "f1")
LETTERS = str.maketrans(
    {"\N{LATIN SMALL LETTER DOTLESS I}": "i", "ß": "ss", "ø": "o", "æ": "ae", "ł": "l"}
)
"""Letters that no decomposition brings to ASCII."""


def classification_scores(
    predictions: Sequence[str], targets: Sequence[str], labels: Sequence[str]
) -> dict[str, float]:
    """accuracy, macro_f1 (0 to 100), mcc (-1 to 1), and each class's scores (0 to 100).

    A class's scores are precision_NAME, recall_NAME and f1_NAME with the NAME of label_names.

    Raises:
        ValueError: no rows, unlike numbers of rows, or a prediction or target that is no label.
    """
    table = confusion(predictions, targets, labels).counts
    if not targets:
        raise ValueError("no rows: a score needs at least one prediction and its target")
    occurring = [sum(row) for row in table]
    predicted = [sum(column) for column in zip(*table, strict=True)]
    right = [table[index][index] for index in range(len(labels))]
    f1 = [
        _percent(2 * hits, seen + chosen)
        for hits, seen, chosen in zip(right, occurring, predicted, strict=True)
    ]
    present = [f1[i] for i in range(len(labels)) if occurring[i] or predicted[i]]
    scores = {
        "accuracy": _percent(sum(right), len(targets)),
        "macro_f1": sum(present) / len(present),
        "mcc": _matthews(right, occurring, predicted),
    }
    for index, name in enumerate(label_names(labels).values()):
        scores[f"precision_{name}"] = _percent(right[index], predicted[index])
        scores[f"recall_{name}"] = _percent(right[index], occurring[index])
        scores[f"f1_{name}"] = f1[index]
    return scores


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


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 0.0


def _matthews(right: Sequence[int], occurring: Sequence[int], predicted: Sequence[int]) -> float:
    """Gorodkin's R_K, in whole numbers up to the last division."""
    rows = sum(occurring)
    covariance = sum(right) * rows - sum(t * p for t, p in zip(occurring, predicted, strict=True))
    spread = (rows**2 - sum(t * t for t in occurring)) * (rows**2 - sum(p * p for p in predicted))
    return covariance / math.sqrt(spread) if spread else 0.0
