"""Scores of chosen labels, against scikit-learn."""
# ruff: noqa: RUF001 - Turkish has a dotless i

import csv
import io
import math
import re
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from trainables.metrics.classification import (
    classification_scores,
    confusion,
    label_names,
)
from trainables.metrics.evaluate_metrics import make_classification

LABELS = ("negative", "neutral", "positive", "mixed")
ROWS = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1)
FEW = st.lists(st.tuples(st.sampled_from(LABELS[:2]), st.sampled_from(LABELS[1:3])), min_size=1)


@given(st.one_of(ROWS, FEW))
def test_scores_equal_scikit_learn(rows: list[tuple[str, str]]) -> None:
    predictions, targets = (list(side) for side in zip(*rows, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = classification_scores(predictions, targets, LABELS)
    expected = _of_scikit_learn(predictions, targets)
    assert ours == pytest.approx(expected, abs=1e-9)
    table = sklearn_metrics.confusion_matrix(targets, predictions, labels=LABELS)
    assert confusion(predictions, targets, LABELS).counts == tuple(map(tuple, table.tolist()))


def _of_scikit_learn(predictions: list[str], targets: list[str]) -> dict[str, float]:
    accuracy = sklearn_metrics.accuracy_score(targets, predictions)
    macro = sklearn_metrics.f1_score(targets, predictions, average="macro", zero_division=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mcc = sklearn_metrics.matthews_corrcoef(targets, predictions)
    scores = {"accuracy": 100 * accuracy, "macro_f1": 100 * macro, "mcc": mcc}
    by_class = sklearn_metrics.precision_recall_fscore_support(
        targets, predictions, labels=LABELS, zero_division=0
    )
    for name, values in zip(("precision", "recall", "f1"), by_class[:3], strict=True):
        scores |= {f"{name}_{label}": 100 * v for label, v in zip(LABELS, values, strict=True)}
    return scores


def test_class_that_is_never_predicted_or_never_occurs_scores_zero() -> None:
    scores = classification_scores(["a", "c"], ["a", "b"], ["a", "b", "c", "d"])
    assert scores["recall_b"] == scores["precision_b"] == scores["f1_b"] == 0
    assert scores["recall_c"] == scores["precision_c"] == scores["f1_c"] == 0
    assert scores["f1_d"] == 0
    assert scores["macro_f1"] == pytest.approx(100 / 3)


def test_single_class_has_no_correlation() -> None:
    scores = classification_scores(["a"] * 3, ["a"] * 3, ["a", "b"])
    assert (scores["accuracy"], scores["macro_f1"], scores["mcc"]) == (100, 100, 0)
    assert all(math.isfinite(value) for value in scores.values())


def test_metric_gives_the_scores() -> None:
    metric = make_classification(["a", "b"])
    scores = metric.compute(predictions=["a", "b", "b"], references=["a", "a", "b"])
    assert scores == classification_scores(["a", "b", "b"], ["a", "a", "b"], ["a", "b"])


@pytest.mark.parametrize(
    ("predictions", "targets", "labels", "message"),
    [
        (["x"], ["a"], ["a", "b"], "'x' is none of the labels"),
        (["a"], ["x"], ["a", "b"], "'x' is none of the labels"),
        (["a"], ["a", "b"], ["a", "b"], "1 predictions for 2 targets"),
        (["a"], ["a"], ["a", "a"], "name each class once"),
        ([], [], ["a"], "no rows"),
        (["a"], ["a"], [], "name each class once"),
    ],
)
def test_rows_that_cannot_be_scored_are_refused(
    predictions: list[str], targets: list[str], labels: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        classification_scores(predictions, targets, labels)


@given(st.lists(st.text(max_size=12), min_size=1, max_size=6, unique=True))
def test_keys_are_safe_and_unlike_for_any_labels(labels: list[str]) -> None:
    scores = classification_scores(labels, labels, labels)
    assert len(scores) == 3 + 3 * len(labels)
    assert len({key.lower() for key in scores}) == len(scores)
    assert all(re.fullmatch(r"[a-z][A-Za-z0-9_]*", key) for key in scores)
    text = io.StringIO()
    csv.writer(text).writerow(scores)
    assert '"' not in text.getvalue()


def test_names_stay_readable() -> None:
    labels = ["çok iyi", "ılık", "a/b", "A b", "!", "não"]
    assert list(label_names(labels).values()) == [
        "cok_iyi",
        "ilik",
        "a_b",
        "A_b_3",
        "class_4",
        "nao",
    ]


def test_rows_are_targets_and_columns_predictions() -> None:
    table = confusion(["no", "no", "yes"], ["yes", "no", "yes"], ["yes", "no"])
    assert table.counts == ((1, 1), (0, 1))
    assert table.labels == ("yes", "no")


def test_csv_names_every_row_and_column_whatever_the_labels_hold() -> None:
    labels = ("a,b", 'say "no"', "two\nlines", "çok")
    text = confusion(labels, labels, labels).as_csv()
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    assert header == ["target", *(f"predicted {label}" for label in labels)]
    assert [row[0] for row in rows] == list(labels)
    assert [row[1:] for row in rows] == [
        ["1" if place == other else "0" for other in range(4)] for place in range(4)
    ]


@pytest.mark.parametrize("num_labels", [20, 21, 1000])
def test_scores_of_single_labels_are_few_and_their_file_has_all(num_labels: int) -> None:
    labels = [f"l{n}" for n in range(num_labels)]
    answers = [*labels[1:], labels[1]]
    scores = classification_scores(answers, labels, labels, asked=("f1_l1", "accuracy"))
    whole = {"accuracy", "macro_f1", "mcc"}
    if num_labels == 20:
        assert len(scores) == 3 + 3 * 20
    else:
        assert scores.keys() == whole | {"f1_l1"}
    table = confusion([*labels[:-1], labels[0]], labels, labels)
    lines = table.scores_as_csv().splitlines()
    assert lines[0] == "label,rows,precision,recall,f1" and len(lines) == 1 + num_labels
    assert lines[1].startswith("l0,1,50.0,100.0,66.6") and lines[-1].endswith(",1,0.0,0.0,0.0")


def test_label_that_a_spreadsheet_would_run_is_shown_as_text() -> None:
    labels = ["=1+1", "fine"]
    table = confusion(labels, labels, labels)
    assert table.as_csv().splitlines() == [
        "target,predicted =1+1,predicted fine",
        "'=1+1,1,0",
        "fine,0,1",
    ]
    assert table.scores_as_csv().splitlines()[1].startswith("'=1+1,1,")
