"""ROUGE and the scores of labels as evaluate.Metric, for whoever has a pipeline of these.

A sweep calls the functions behind them: `evaluate` brings `datasets` with it, whose import takes a
pack 1.7 s beside an H200.
"""

import tempfile
from collections.abc import Sequence

import datasets
import evaluate

from trainables.config import Language
from trainables.metrics.classification import classification_scores
from trainables.metrics.rouge import ROUGE_TYPES, rouge_rows


class Rouge(evaluate.Metric):  # type: ignore[misc]
    """ROUGE-1, 2, L and Lsum: mean F1 over the rows, 0 to 100."""

    def __init__(self, language: Language = "english") -> None:
        self.language = language
        # evaluate makes its cache folder even if nothing is cached; a home may be read-only.
        super().__init__(keep_in_memory=True, cache_dir=tempfile.gettempdir(), seed=0)

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description="Overlap of words, word pairs and longest common subsequences.",
            citation="Lin, 2004: ROUGE, a package for automatic evaluation of summaries.",
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        rows = rouge_rows(predictions, references, self.language)
        return {name: sum(row[name] for row in rows) / len(rows) for name in ROUGE_TYPES}


class Classification(evaluate.Metric):  # type: ignore[misc]
    """classification_scores as an evaluate.Metric."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        # evaluate makes its cache folder even if nothing is cached; a home may be read-only.
        super().__init__(keep_in_memory=True, cache_dir=tempfile.gettempdir(), seed=0)

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description="Accuracy, macro F1, Matthews correlation, and each class's scores.",
            citation="Gorodkin, 2004: Comparing two K-category assignments by a K-category "
            "correlation coefficient.",
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        return classification_scores(predictions, references, self.labels)
