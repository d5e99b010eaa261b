"""A metric of a resample is that of the rows that it drew."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.finals.run_metrics import make_run_metric
from trainables.config import Metric
from trainables.data.rows import Row, Scoring
from trainables.metrics.classification import classification_scores
from trainables.metrics.eval_result import SavedAnswers
from trainables.metrics.score_texts import score_texts

TEXTS = st.lists(st.sampled_from(["the", "cat", "sat", "on", "3.5", "mats."]), max_size=7)
SENTENCES = TEXTS.map(" ".join)


def drawn_from(num_rows: int, seed: int) -> np.ndarray:
    shares = [1 / num_rows] * num_rows
    return np.random.default_rng(seed).multinomial(num_rows, shares, 5)


def picked(counts: np.ndarray) -> list[int]:
    return [row for row, number in enumerate(counts) for _ in range(number)]


def test_loss_is_a_mean_over_the_tokens_of_the_rows_that_are_drawn() -> None:
    losses = ((3.0, 2), (8.0, 10), (0.5, 1))
    saved = SavedAnswers(
        ids=("0", "1", "2"),
        targets=("a",) * 3,
        answers=("b",) * 3,
        row_scores={},
        row_losses=losses,
    )
    drawn = drawn_from(3, 0)
    for kind in ("summarize", "classify"):
        scoring = Scoring(kind=kind, labels=("a", "b"))
        metric = make_run_metric(saved, Metric(name="eval_loss", mode="min"), scoring)
        for counts, value in zip(drawn, metric(drawn.astype(float)), strict=True):
            rows = [losses[row] for row in picked(counts)]
            assert value == pytest.approx(sum(r[0] for r in rows) / sum(r[1] for r in rows))


@given(
    num_labels=st.integers(1, 5),
    pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=20),
    seed=st.integers(0, 1000),
)
def test_scores_of_labels(num_labels: int, pairs: list[tuple[int, int]], seed: int) -> None:
    labels = [f"l{label}" for label in range(num_labels)]
    answers = [labels[answer % num_labels] for answer, _ in pairs]
    targets = [labels[target % num_labels] for _, target in pairs]
    saved = SavedAnswers(
        ids=tuple(map(str, range(len(pairs)))),
        targets=tuple(targets),
        answers=tuple(answers),
        row_scores={},
    )
    drawn = drawn_from(len(pairs), seed)
    scoring = Scoring(kind="classify", labels=tuple(labels))
    of_label = [f"{kind}_{labels[-1]}" for kind in ("f1", "precision", "recall")]
    for name in ("macro_f1", "mcc", *of_label):
        found = make_run_metric(saved, Metric(name=name), scoring)(drawn.astype(float))
        for counts, value in zip(drawn, found, strict=True):
            rows = picked(counts)
            scores = classification_scores(
                [answers[s] for s in rows], [targets[s] for s in rows], labels
            )
            assert value == pytest.approx(scores[name]), name


@given(
    rows=st.lists(
        st.tuples(SENTENCES, SENTENCES, st.lists(SENTENCES, max_size=2)), min_size=1, max_size=6
    ),
    seed=st.integers(0, 1000),
)
@pytest.mark.slow
def test_scores_of_texts(rows: list[tuple[str, str, list[str]]], seed: int) -> None:
    scoring = Scoring(metrics=("bleu", "chrf"))
    asked = [
        Row(id=str(n), prompt="?", target=target, references=tuple(others))
        for n, (_, target, others) in enumerate(rows)
    ]
    answers = [answer for answer, _, _ in rows]
    totals, row_scores = score_texts(answers, asked, scoring)
    saved = SavedAnswers(
        ids=tuple(row.id for row in asked),
        targets=tuple(row.target for row in asked),
        answers=tuple(answers),
        row_scores=row_scores,
        references=tuple(row.references for row in asked),
    )
    drawn = drawn_from(len(rows), seed)
    for name in totals:
        metric = make_run_metric(saved, Metric(name=name), scoring)
        assert metric(np.ones((1, len(rows))))[0] == pytest.approx(totals[name])
        for counts, value in zip(drawn, metric(drawn.astype(float)), strict=True):
            drew = picked(counts)
            again, _ = score_texts([answers[s] for s in drew], [asked[s] for s in drew], scoring)
            assert value == pytest.approx(again[name]), name


def test_a_number_of_all_rows_cannot_be_told_of_others() -> None:
    saved = SavedAnswers(ids=("0",), targets=("a",), answers=("a",), row_scores={"mine": (1.0,)})
    one = Scoring(kind="classify", labels=("a",))
    for scoring in (Scoring(), one):
        for name in ("eval_loss", "score"):
            with pytest.raises(ValueError, match=name):
                make_run_metric(saved, Metric(name=name), scoring)
    assert make_run_metric(saved, Metric(name="mine"), replace(one))(np.ones((1, 1))) == [1.0]
