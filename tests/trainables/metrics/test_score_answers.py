"""What is said of a model's answers and choices, the same for both engines."""

import math
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from trainables.data.prepared_rows import read_rows
from trainables.data.rows import Row, Scoring
from trainables.metrics.score_answers import score_answers, score_labels
from trainables.models.base_model import load_tokenizer
from trainables.tiny import MODEL_DIR


@pytest.fixture
def rows(rows_dir: Path) -> list[Row]:
    """All validation rows."""
    return list(read_rows(rows_dir).validation)


def test_answers_are_scored_as_text(tokenizer: PreTrainedTokenizerFast, rows: list[Row]) -> None:
    answers = [tokenizer(f" {row.target}")["input_ids"] for row in rows]
    scores = score_answers(tokenizer, answers, rows, Scoring(language="english"), thinking=False)
    assert scores.metrics["rougeLsum"] == pytest.approx(100)
    assert scores.metrics["gen_len_tokens"] == sum(map(len, answers)) / len(answers)


def test_answers_and_their_own_scores_are_kept_row_by_row(
    tokenizer: PreTrainedTokenizerFast, rows: list[Row]
) -> None:
    said = [rows[0].target, *("nothing of it" for _ in rows[1:])]
    answers = [tokenizer(f" {text}")["input_ids"] for text in said]
    scores = score_answers(tokenizer, answers, rows, Scoring(language="english"), thinking=False)
    assert list(scores.answers) == said
    assert scores.row_scores.keys() == {"rouge1", "rouge2", "rougeL", "rougeLsum"}
    for name, values in scores.row_scores.items():
        assert len(values) == len(rows) and values[0] == pytest.approx(100)
        assert sum(values) / len(values) == scores.metrics[name]


def test_an_answer_after_a_thought_is_scored_without_it() -> None:
    tokenizer = load_tokenizer(str(MODEL_DIR))
    rows = [Row(id=str(n), prompt="?", target="the answer") for n in range(2)]
    texts = ("I wonder </think> the answer", "the answer, I think")
    answers = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    plain = score_answers(tokenizer, answers, rows, Scoring(), thinking=False)
    assert "unfinished_frac" not in plain.metrics
    scores = score_answers(tokenizer, answers, rows, Scoring(), thinking=True)
    assert scores.metrics["rouge1"] == 50.0
    assert scores.metrics["unfinished_frac"] == 0.5
    assert scores.answers == ("the answer", "")


def test_the_likeliest_label_is_chosen_and_ties_go_to_the_first() -> None:
    labels = [[1], [2, 3]]
    scoring = Scoring(kind="classify", labels=("a", "b"))
    rows = [Row(id=str(n), prompt="?", target=target) for n, target in enumerate("abba")]
    table = torch.tensor([[-1.0, -2.0], [-3.0, -1.0], [-2.0, -2.0], [-5.0, -4.0]]).double()
    scores = score_labels(table, rows, labels, scoring)
    assert scores.metrics["accuracy"] == 50.0
    assert scores.metrics["eval_loss"] == pytest.approx((1 + 1 + 2 + 5) / 6)
    assert scores.answers == ("a", "b", "a", "b")
    assert scores.row_scores == {"accuracy": (100.0, 100.0, 0.0, 0.0)}


@pytest.mark.parametrize(("num_labels", "num_kept"), [(3, 3), (20, 20), (21, 5)])
def test_probabilities_of_labels_are_shares_of_their_likelihoods(
    num_labels: int, num_kept: int
) -> None:
    names = tuple(f"label {n}" for n in range(num_labels))
    rows = [Row(id=str(n), prompt="?", target=names[0]) for n in range(4)]
    table = torch.randn(4, num_labels, generator=torch.Generator().manual_seed(3)).double() * 3 - 9
    labels = [[n] for n in range(num_labels)]
    scores = score_labels(table, rows, labels, Scoring(kind="classify", labels=names))
    assert len(scores.probabilities) == 4
    for log_probs, answer, shares in zip(
        table.tolist(), scores.answers, scores.probabilities, strict=True
    ):
        total = sum(map(math.exp, log_probs))
        expected = {n: math.exp(p) / total for n, p in zip(names, log_probs, strict=True)}
        best = sorted(expected, key=expected.__getitem__, reverse=True)[:num_kept]
        assert list(shares) == best and best[0] == answer
        assert shares == pytest.approx({name: expected[name] for name in best}, abs=1e-6)


def test_log_probs_that_are_no_numbers_give_a_loss_that_is_none() -> None:
    rows = [Row(id="0", prompt="?", target="a")]
    table = torch.tensor([[float("nan"), -1.0]]).double()
    scoring = Scoring(kind="classify", labels=("a", "b"))
    scores = score_labels(table, rows, [[1], [2]], scoring)
    assert math.isnan(scores.metrics["eval_loss"])
