"""What every evaluate.Metric of answers and their targets is, whatever it computes."""

import tempfile
from typing import ClassVar

import datasets
import evaluate


class TextMetric(evaluate.Metric):  # type: ignore[misc]
    """An evaluate.Metric over the texts of predictions and references, kept in memory."""

    ABOUT: ClassVar[str]
    """What it measures."""
    SOURCE: ClassVar[str]
    """Who has defined it."""

    def __init__(self) -> None:
        # evaluate makes its cache folder even if nothing is cached; a home may be read-only.
        super().__init__(keep_in_memory=True, cache_dir=tempfile.gettempdir(), seed=0)

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=self.ABOUT,
            citation=self.SOURCE,
            features=datasets.Features({"predictions": text, "references": text}),
        )
