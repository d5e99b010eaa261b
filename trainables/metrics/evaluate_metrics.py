"""ROUGE and the scores of labels as evaluate.Metric, for whoever has a pipeline of these.

A sweep calls the functions behind them: `evaluate` brings `datasets` with it, whose import takes a
pack 1.7 s beside an H200.
"""

from collections.abc import Sequence

from trainables.config import Language
from trainables.metrics.classification import classification_scores
from trainables.metrics.rouge import ROUGE_TYPES, rouge_rows
from trainables.metrics.text_metric import TextMetric


class Rouge(TextMetric):
    """ROUGE-1, 2, L and Lsum: mean F1 over the rows, 0 to 100."""

    ABOUT = "Overlap of words, word pairs and longest common subsequences."
    SOURCE = "Lin, 2004: ROUGE, a package for automatic evaluation of summaries."

    def __init__(self, language: Language = "english") -> None:
        self.language = language
        super().__init__()

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        rows = rouge_rows(predictions, references, self.language)
        return {name: sum(row[name] for row in rows) / len(rows) for name in ROUGE_TYPES}


class Classification(TextMetric):
    """classification_scores as an evaluate.Metric."""

    ABOUT = "Accuracy, macro F1, Matthews correlation, and each class's scores."
    SOURCE = (
        "Gorodkin, 2004: Comparing two K-category assignments by a K-category "
        "correlation coefficient."
    )

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        super().__init__()

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        return classification_scores(predictions, references, self.labels)
