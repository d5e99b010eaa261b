"""ROUGE inside the project, against rouge_score."""
# ruff: noqa: RUF001 - Turkish has a dotless i

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from trainables.metrics import rouge
from trainables.metrics.evaluate_metrics import make_rouge
from trainables.metrics.rouge import ROUGE_TYPES, rouge_rows
from trainables.metrics.sentences import sentences_of

WORDS = st.sampled_from(
    ["Ann", "is", "running", "ponies", "don't", "flies", "3rd", "snake_case", "U.S.", "Hi!", "ok?"]
)
LINES = st.lists(WORDS, min_size=0, max_size=12).map(" ".join)
ASCII = st.text(alphabet=string.printable, max_size=60)
TEXTS = st.one_of(LINES, ASCII, st.text(alphabet="aAbB .!?\n", max_size=60))


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5))
def test_scores_equal_rouge_score_on_ascii(pairs: list[tuple[str, str]]) -> None:
    predictions, references = zip(*pairs, strict=True)
    scorer = RougeScorer(ROUGE_TYPES, use_stemmer=True)
    for ours, (prediction, reference) in zip(
        rouge_rows(predictions, references, "english"), pairs, strict=True
    ):
        theirs = scorer.score(_lines(reference), _lines(prediction))
        for name in ROUGE_TYPES:
            assert ours[name] == pytest.approx(100 * theirs[name].fmeasure, abs=1e-9)


def test_accents_are_kept_where_rouge_score_drops_them() -> None:
    row = rouge_rows(["um café"], ["um caf"], "english")[0]
    theirs = RougeScorer(ROUGE_TYPES, use_stemmer=True).score("um caf", "um café")
    assert theirs["rouge1"].fmeasure == pytest.approx(1.0)
    assert row["rouge1"] == pytest.approx(50)


def test_metric_is_the_mean_of_the_rows() -> None:
    predictions, references = ["Ann sings.", "a b"], ["Ann sings.", "c d"]
    scores = make_rouge().compute(predictions=predictions, references=references)
    assert scores == dict.fromkeys(ROUGE_TYPES, pytest.approx(50))


def test_lsum_sees_sentences() -> None:
    scores = make_rouge().compute(
        predictions=["Bob bakes a cake. Ann buys tickets."],
        references=["Ann buys tickets. Bob bakes a cake."],
    )
    assert scores["rougeLsum"] == pytest.approx(100)
    assert scores["rougeL"] < 60


def test_letters_tell_words_apart() -> None:
    row = rouge_rows(["şöle bir gün"], ["çöle bir gün"], "turkish")[0]
    assert row["rouge1"] == pytest.approx(100 * 2 / 3)
    assert row["rouge2"] == pytest.approx(50)
    row = rouge_rows(["A avó não virá."], ["O avô não virá."], "portuguese")[0]
    assert row["rouge1"] == pytest.approx(50)


def test_capitals_and_suffixes_in_turkish() -> None:
    row = rouge_rows(["IŞIK İZMİR'DE"], ["ışık İzmir'de"], "turkish")[0]
    assert row == dict.fromkeys(ROUGE_TYPES, pytest.approx(100))
    row = rouge_rows(["Ankara'ya gitti"], ["Ankara'da kaldı"], "turkish")[0]
    assert row["rouge1"] == pytest.approx(100 / 3)


@given(st.lists(TEXTS, min_size=1, max_size=4), st.randoms())
def test_prepared_references_score_every_set_of_answers_alike(texts: list[str], random) -> None:  # type: ignore[no-untyped-def]
    for _ in range(3):
        answers = random.sample(texts, len(texts))
        again = rouge_rows(answers, texts, "english")
        rouge._prepare_references.cache_clear()
        assert rouge_rows(answers, texts, "english") == again


def test_unlike_numbers_of_answers_and_references_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        rouge_rows(["a"], ["a", "b"], "english")


def _lines(text: str) -> str:
    return "\n".join(sentences_of(text, "english"))
