"""A run's metric on any resample of the rows, from the answers that it gave.

Shapes: B resamples, S rows, L labels, C counts.
"""

from collections.abc import Sequence

import numpy as np

from sweeps.finals.bootstrap import Floats, RunMetric, make_mean_metric
from trainables.config import Metric
from trainables.data.rows import Scoring
from trainables.metrics.classification import label_names
from trainables.metrics.eval_result import SavedAnswers
from trainables.metrics.registry import METRICS
from trainables.metrics.texts.ngram_scores import SummedScore


def make_run_metric(answers: SavedAnswers, metric: Metric, scoring: Scoring) -> RunMetric:
    """The metric of resamples: a mean over rows, or a function of sums over them.

    Raises:
        ValueError: it is a number of all rows that only its own code could give.
    """
    if metric.name in answers.row_scores:
        return make_mean_metric(answers.row_scores[metric.name])
    built_in = METRICS.get(metric.name)
    if built_in is not None and built_in.summed is not None:
        return make_summed_metric(answers, built_in.summed)
    if metric.name == "eval_loss" and answers.row_losses:
        losses_S, tokens_S = np.array(answers.row_losses, dtype=np.float64).T
        return lambda drawn_BS: (drawn_BS @ losses_S) / (drawn_BS @ tokens_S)
    if scoring.kind == "classify" and metric.name != "eval_loss":
        return make_label_metric(metric.name, answers.answers, answers.targets, scoring.labels)
    raise ValueError(
        f"{metric.name} is one number of all rows; a function that returns a list with a number a "
        "row would have an interval"
    )


def make_summed_metric(answers: SavedAnswers, metric: SummedScore) -> RunMetric:
    """A metric such as BLEU."""
    references = zip(answers.targets, answers.references, strict=True)
    counts_SC = np.array(
        [
            metric.count_row(answer, (target, *others))
            for answer, (target, others) in zip(answers.answers, references, strict=True)
        ],
        dtype=np.float64,
    )
    return lambda drawn_BS: np.array([metric.score_sums(sums) for sums in (drawn_BS @ counts_SC)])


def make_label_metric(
    name: str, answers: Sequence[str], targets: Sequence[str], labels: Sequence[str]
) -> RunMetric:
    """One of trainables/metrics/classification.py's scores of chosen labels.

    The mean of macro_f1 is over the labels that the resample holds, as a target or as an answer.

    Raises:
        ValueError: it has no such score.
    """
    names = list(label_names(labels).values())
    kind, _, label = name.partition("_")
    is_of_label = kind in ("f1", "precision", "recall") and label in names
    if not is_of_label and name not in ("macro_f1", "mcc"):
        raise ValueError(f"{name} cannot be told of resampled rows")
    said_SL, right_SL = (
        np.array([[text == label for label in labels] for text in texts], dtype=np.float64)
        for texts in (answers, targets)
    )
    hits_SL = said_SL * right_SL

    def metric(drawn_BS: Floats) -> Floats:
        hits_BL, said_BL, right_BL = (drawn_BS @ one for one in (hits_SL, said_SL, right_SL))
        if name == "mcc":
            return _compute_matthews(hits_BL, said_BL, right_BL)
        wholes = {"precision": said_BL, "recall": right_BL}
        whole_BL = wholes.get(kind, (said_BL + right_BL) / 2)
        scores_BL: Floats = 100.0 * hits_BL / np.where(whole_BL > 0, whole_BL, 1.0)
        if is_of_label:
            of_label: Floats = scores_BL[:, names.index(label)]
            return of_label
        means: Floats = scores_BL.sum(axis=1) / (whole_BL > 0).sum(axis=1)
        return means

    return metric


def _compute_matthews(hits_BL: Floats, said_BL: Floats, right_BL: Floats) -> Floats:
    rows_B = right_BL.sum(axis=1)
    covariance_B = hits_BL.sum(axis=1) * rows_B - (said_BL * right_BL).sum(axis=1)
    spreads = [rows_B**2 - (one**2).sum(axis=1) for one in (said_BL, right_BL)]
    spread_B = np.sqrt(spreads[0] * spreads[1])
    scores_B: Floats = covariance_B / np.where(spread_B > 0, spread_B, 1.0)
    return scores_B
