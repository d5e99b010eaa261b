"""What was answered to test: a sample of rows side by side, and which labels were confused."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sweeps.finals.predictions import Prediction
from sweeps.publish.report.facts import RunFacts
from trainables.metrics.classification import MAX_REPORTED_LABELS, Confusion
from trainables.metrics.scales import format_score

MAX_ANSWERS = 20
MAX_CHARS = 4_000
"""Of one text of an answer; a prompt may be a book."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One test row, cut to what a page can show."""

    id: str
    prompt: str
    target: str
    base: str
    tuned: str
    scores: Sequence[tuple[str, str]]
    """Whose, and the metric of this row; none where it is of all rows."""
    is_changed: bool


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of the confusion matrix."""

    count: int
    step: int
    """0 to 5, by its share of the target's rows."""
    is_right: bool


def list_answers(facts: RunFacts) -> list[Answer]:
    """The first rows of the fixed order in which they are scored: a sample that nobody chose."""
    return [_cut_answer(row, facts.metric.name) for row in facts.answers[:MAX_ANSWERS]]


def shade(confusion: Confusion | None) -> list[tuple[str, list[Cell]]]:
    """The matrix with how much of each target's rows lies in each cell; [] of many labels."""
    if confusion is None or len(confusion.labels) > MAX_REPORTED_LABELS:
        return []
    shaded = []
    for row, (label, counts) in enumerate(zip(confusion.labels, confusion.counts, strict=True)):
        total = sum(counts) or 1
        cells = [
            Cell(count=n, step=math.ceil(5 * n / total), is_right=row == column)
            for column, n in enumerate(counts)
        ]
        shaded.append((label, cells))
    return shaded


def _cut_answer(row: Prediction, name: str) -> Answer:
    both = [of.get(name) for of in (row.base_scores, row.scores)]
    scores = [
        (who, format_score(name, value, both))
        for who, value in zip(("base", "winner"), both, strict=True)
        if value is not None
    ]
    if row.probability is not None:
        scores.append(("winner's probability", f"{row.probability:.2f}"))
    return Answer(
        id=row.id,
        prompt=_cut(row.prompt),
        target=_cut(row.target),
        base=_cut(row.base_prediction),
        tuned=_cut(row.prediction),
        scores=scores,
        is_changed=row.base_prediction != row.prediction,
    )


def _cut(text: str) -> str:
    more = len(text) - MAX_CHARS
    return text if more <= 0 else f"{text[:MAX_CHARS]} [{more:,} more characters]"
