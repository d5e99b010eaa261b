"""All scores of answers that are texts, and those by metrics of the user's own. No torch."""

from collections.abc import Sequence
from dataclasses import replace

from trainables.data.rows import Row, Scoring
from trainables.errors import TrialFailed
from trainables.metrics.classification import classification_scores
from trainables.metrics.custom.client import score_custom
from trainables.metrics.eval_result import EvalResult
from trainables.metrics.registry import METRICS
from trainables.metrics.rouge import ROUGE_TYPES, rouge_rows


def score_texts(
    texts: Sequence[str], rows: Sequence[Row], scoring: Scoring
) -> tuple[dict[str, float], dict[str, tuple[float, ...]]]:
    """The metrics of texts that are always reported and those that are asked for, 0 to 100.

    Returns:
        The scores of all rows, and each row's own of those that are means over rows.
    """
    references = [(row.target, *row.references) for row in rows]
    repeated = [text for text, right in zip(texts, references, strict=True) for _ in right]
    flat = [one for right in references for one in right]
    scores = iter(rouge_rows(repeated, flat, scoring.language))
    rouges = [[next(scores) for _ in right] for right in references]
    row_scores = {  # each type takes its best reference, as rouge_score does
        name: tuple(max(one[name] for one in row) for row in rouges) for name in ROUGE_TYPES
    }
    totals = {}
    for name, metric in METRICS.items():
        if not (metric.is_always or name in scoring.metrics):
            continue
        if metric.score_row is not None:
            row_scores[name] = tuple(
                max(metric.score_row(text, one, scoring.language) for one in right)
                for text, right in zip(texts, references, strict=True)
            )
        elif metric.summed is not None:
            summed = metric.summed
            counts = [summed.count_row(*pair) for pair in zip(texts, references, strict=True)]
            totals[name] = summed.score_sums([sum(c) for c in zip(*counts, strict=True)])
    means = {name: sum(values) / len(values) for name, values in row_scores.items()}
    return means | totals, row_scores


def score_given_answers(said: Sequence[str], rows: Sequence[Row], scoring: Scoring) -> EvalResult:
    """All scores of answers that are given, texts or labels; the loss is of a model alone."""
    if scoring.kind == "classify":
        targets = [row.target for row in rows]
        metrics = classification_scores(said, targets, scoring.labels, scoring.metrics)
        pairs = zip(said, targets, strict=True)
        of_rows = {"accuracy": tuple(100.0 * (one == target) for one, target in pairs)}
    else:
        metrics, of_rows = score_texts(said, rows, scoring)
    scored = EvalResult(metrics=metrics, answers=tuple(said), row_scores=of_rows)
    return add_custom_scores(scored, rows, scoring)


def add_custom_scores(scored: EvalResult, rows: Sequence[Row], scoring: Scoring) -> EvalResult:
    """The scores of the user's own metrics too, or why there are none."""
    if not scoring.custom:
        return scored
    try:
        totals, by_row = score_custom(scoring.custom, rows, scored.answers, scoring.labels)
    except TrialFailed as failed:
        return replace(scored, failure=str(failed))
    return replace(scored, metrics=scored.metrics | totals, row_scores=scored.row_scores | by_row)
