"""What is said of a model's answers and choices, the same for both engines."""

import math
import random
from pathlib import Path

import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF
from transformers import PreTrainedTokenizerFast

from trainables.data.prepared_rows import read_rows
from trainables.data.rows import MetricCode, Row, Scoring
from trainables.metrics.score_answers import score_answers, score_labels
from trainables.metrics.score_texts import score_texts
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
    rouge = {"rouge1", "rouge2", "rougeL", "rougeLsum"}
    assert scores.row_scores.keys() == rouge | {"exact_match", "token_f1"}
    for name, values in scores.row_scores.items():
        assert len(values) == len(rows) and values[0] == pytest.approx(100)
        assert sum(values) / len(values) == scores.metrics[name]


def test_metrics_that_cost_more_are_reported_where_they_are_asked_for() -> None:
    rows = [Row(id="0", prompt="?", target='{"a": 1}')]
    asked = Scoring(metrics=("bleu", "chrf", "json_fields"))
    plain, _ = score_texts(['{"a": 1}'], rows, Scoring())
    more, of_rows = score_texts(['{"a": 1}'], rows, asked)
    assert more.keys() - plain.keys() == {"bleu", "chrf", "json_fields"}
    assert more["json_fields"] == more["exact_match"] == more["chrf"] == 100.0
    assert more.keys() - of_rows.keys() == {"bleu", "chrf"}


def test_the_best_of_several_references_counts_in_every_metric() -> None:
    generator = random.Random(0)
    words = ["the", "cat", "sat", "on", "a", "mat", "while", "it", "rained", "all", "of", "today"]
    said = [" ".join(generator.choices(words, k=9)) for _ in range(30)]
    right = [[" ".join(generator.choices(words, k=9)) for _ in range(3)] for _ in said]
    rows = [
        Row(id=str(n), prompt="?", target=first, references=tuple(others))
        for n, (first, *others) in enumerate(right)
    ]
    found, of_rows = score_texts(said, rows, Scoring(metrics=("bleu", "chrf")))
    streams = [list(stream) for stream in zip(*right, strict=True)]
    assert found["bleu"] == pytest.approx(BLEU().corpus_score(said, streams).score, rel=1e-12)
    assert found["chrf"] == pytest.approx(CHRF().corpus_score(said, streams).score, rel=1e-12)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    for index, (answer, references) in enumerate(zip(said, right, strict=True)):
        for name, score in scorer.score_multi(references, answer).items():
            assert of_rows[name][index] == pytest.approx(100 * score.fmeasure)
    for number in range(3):  # as many rows with the same answers, and one reference each
        alone = [Row(id="0", prompt="?", target=references[number]) for references in right]
        for name, values in score_texts(said, alone, Scoring())[1].items():
            assert all(a <= b for a, b in zip(values, of_rows[name], strict=True)), name


def test_a_metric_of_the_users_own_is_reported_for_texts_and_labels(
    tokenizer: PreTrainedTokenizerFast, rows: list[Row]
) -> None:
    source = "def length(rows):\n    return [len(row['answer']) for row in rows]\n"
    custom = (MetricCode(name="length", files={"a.py": source}, function="length"),)
    answers = [tokenizer(row.target)["input_ids"] for row in rows]
    texts = score_answers(tokenizer, answers, rows, Scoring(custom=custom), thinking=False)
    lengths = tuple(float(len(answer)) for answer in texts.answers)
    assert texts.row_scores["length"] == lengths and texts.failure is None
    assert texts.metrics["length"] == sum(lengths) / len(lengths) > 1
    labels = Scoring(kind="classify", labels=("a", "bcd"), custom=custom)
    chosen = torch.tensor([[-1.0, -2.0], [-2.0, -1.0]]).double()
    two = [Row(id=str(n), prompt="?", target="a") for n in range(2)]
    scores = score_labels(chosen, two, [[1], [2]], labels)
    assert scores.metrics["length"] == 2.0 and scores.metrics["accuracy"] == 50.0


def test_a_metric_that_crashes_leaves_the_other_scores_and_its_reason() -> None:
    source = "def broken(rows):\n    return rows[9]\n"
    custom = (MetricCode(name="broken", files={"a.py": source}, function="broken"),)
    labels = Scoring(kind="classify", labels=("a", "b"), custom=custom)
    rows = [Row(id="0", prompt="?", target="a")]
    scores = score_labels(torch.tensor([[-1.0, -2.0]]).double(), rows, [[1], [2]], labels)
    assert scores.failure is not None and "list index out of range" in scores.failure
    assert scores.metrics["accuracy"] == 100.0 and "broken" not in scores.metrics


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
    assert scores.row_losses == ((1.0, 1), (1.0, 2), (2.0, 2), (5.0, 1))


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
