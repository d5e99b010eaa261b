"""The metrics as evaluate.Metric, for whoever has a pipeline of these.

A sweep calls the functions behind them: `evaluate` brings `datasets` with it, whose import takes a
pack 1.7 s beside an H200.
"""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import datasets
import evaluate

from trainables.config import Language
from trainables.metrics.bertscore import BertScore
from trainables.metrics.classification import classification_scores
from trainables.metrics.rouge import ROUGE_TYPES, rouge_rows


class TextMetric(evaluate.Metric):  # type: ignore[misc]
    """Computes scores of texts in memory; any metric of predictions and references can be one."""

    def __init__(self, description: str, citation: str, compute: Callable[..., Any]) -> None:
        text = datasets.Value("string")
        self._about = evaluate.MetricInfo(
            description=description,
            citation=citation,
            features=datasets.Features({"predictions": text, "references": text}),
        )
        self._compute_scores = compute
        # evaluate makes its cache folder even if nothing is cached; a home may be read-only.
        super().__init__(keep_in_memory=True, cache_dir=tempfile.gettempdir(), seed=0)

    def _info(self) -> evaluate.MetricInfo:
        return self._about

    def _compute(self, predictions: list[str], references: list[str]) -> Any:
        return self._compute_scores(predictions, references)


def make_rouge(language: Language = "english") -> TextMetric:
    """ROUGE-1, 2, L and Lsum: mean F1 over the rows, 0 to 100."""

    def compute(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        rows = rouge_rows(predictions, references, language)
        return {name: sum(row[name] for row in rows) / len(rows) for name in ROUGE_TYPES}

    return TextMetric(
        "Overlap of words, word pairs and longest common subsequences.",
        "Lin, 2004: ROUGE, a package for automatic evaluation of summaries.",
        compute,
    )


def make_classification(labels: Sequence[str]) -> TextMetric:
    """Accuracy, macro F1, Matthews correlation, and each class's scores."""
    return TextMetric(
        "Accuracy, macro F1, Matthews correlation, and each class's scores.",
        "Gorodkin, 2004: Comparing two K-category assignments by a K-category correlation "
        "coefficient.",
        partial(classification_scores, labels=labels),
    )


def make_bertscore(encoder: str, layer: int) -> TextMetric:
    """Mean precision, recall and F1 of BERTScore, -100 to 100."""
    return TextMetric(
        "Greedy matching of contextual embeddings.",
        "Zhang et al., 2020: BERTScore: Evaluating Text Generation with BERT.",
        BertScore(encoder, layer).score_means,
    )
