"""What was answered to test: a sample of rows side by side, and which labels were confused."""

import math
from collections.abc import Sequence

from sweeps.finals import predictions
from sweeps.finals.predictions import Prediction
from sweeps.publish.load_run import SweepRun
from trainables.data.prepared_rows import read_rows
from trainables.errors import SweepAborted
from trainables.metrics.classification import MAX_REPORTED_LABELS, Confusion
from trainables.metrics.registry import format_score

MAX_ANSWERS = 20
MAX_CHARS = 4_000
"""Longest text of an answer that is shown; a prompt may be a book."""


def read_answers(sweep: SweepRun) -> tuple[list[Prediction], Confusion | None]:
    """What was answered to the test rows, in the fixed order in which they are scored, and which
    labels were confused; nothing where the rows or answers are not kept."""
    if sweep.outcome is None:
        return [], None
    try:
        splits = read_rows(sweep.paths.rows, ["test"])
    except SweepAborted:
        return [], None
    answers = predictions.load(sweep.paths, splits.test, sweep.outcome.winner.run.trial_id)
    return answers, predictions.count_confusions(answers, splits)


def list_answers(answers: Sequence[Prediction], metric_name: str) -> list[dict[str, str]]:
    """The first of them, cut to what a page can show: a sample that nobody chose."""
    return [
        {
            "id": row.id,
            "prompt": _cut_text(row.prompt),
            "target": _cut_text(row.target),
            "base": _cut_text(row.base_prediction),
            "tuned": _cut_text(row.prediction),
            "says": _judge_answers(row, metric_name),
        }
        for row in answers[:MAX_ANSWERS]
    ]


def shade(confusion: Confusion | None) -> list[tuple[str, list[tuple[int, int, bool]]]]:
    """Each target with its cells: the count, from 0 to 5 its share of the target's rows, and
    whether it is right; [] of many labels."""
    if confusion is None or len(confusion.labels) > MAX_REPORTED_LABELS:
        return []
    shaded = []
    for row, (label, counts) in enumerate(zip(confusion.labels, confusion.counts, strict=True)):
        total = sum(counts) or 1
        cells = [(n, math.ceil(5 * n / total), row == column) for column, n in enumerate(counts)]
        shaded.append((label, cells))
    return shaded


def _judge_answers(row: Prediction, name: str) -> str:
    """Right or wrong for a label; the metric of texts, where a single row has one."""
    if row.probability is not None:
        base, tuned = (
            "right" if said == row.target else "wrong"
            for said in (row.base_prediction, row.prediction)
        )
        probability = f"probability {row.probability:.2f}"
        return f"The base is {base}, the winner is {tuned} ({probability})."
    both = [of.get(name) for of in (row.base_scores, row.scores)]
    if None in both:
        return ""
    base, tuned = (format_score(name, score, both) for score in both)
    return f"{name}: base {base}, winner {tuned}."


def _cut_text(text: str) -> str:
    more = len(text) - MAX_CHARS
    return text if more <= 0 else f"{text[:MAX_CHARS]} [{more:,} more characters]"
