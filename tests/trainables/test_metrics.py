"""ROUGE inside the project."""
# ruff: noqa: RUF001 - Turkish has a dotless i

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from trainables.metrics import ROUGE_TYPES, Rouge, WordTokenizer, by_sentence, fingerprint

WORDS = st.sampled_from(
    ["Ann", "is", "running", "ponies", "don't", "flies", "3rd", "snake_case", "U.S.", "Hi!", "ok?"]
)
SENTENCES = st.lists(WORDS, min_size=0, max_size=12).map(" ".join)
ASCII = st.text(alphabet=string.printable, max_size=60)
TEXTS = st.one_of(SENTENCES, ASCII)


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5))
def test_scores_equal_rouge_score_on_ascii(pairs: list[tuple[str, str]]) -> None:
    predictions, references = (list(side) for side in zip(*pairs, strict=True))
    ours = Rouge().compute(predictions=predictions, references=references)
    scorer = RougeScorer(ROUGE_TYPES, use_stemmer=True)
    theirs = [
        scorer.score(by_sentence(reference), by_sentence(prediction))
        for prediction, reference in pairs
    ]
    for name in ROUGE_TYPES:
        mean = sum(score[name].fmeasure for score in theirs) / len(theirs)
        assert ours[name] == pytest.approx(100 * mean)


def test_lsum_sees_sentences() -> None:
    scores = Rouge().compute(
        predictions=["Bob bakes a cake. Ann buys tickets."],
        references=["Ann buys tickets. Bob bakes a cake."],
    )
    assert scores["rougeLsum"] == pytest.approx(100)
    assert scores["rougeL"] < 60


def test_sentences_are_split_at_their_ends_and_at_newlines() -> None:
    text = 'Ann left. Bob asked "Why?" She said 3.5 is fine!\nOk'
    assert by_sentence(text) == 'Ann left.\nBob asked "Why?\nShe said 3.5 is fine!\nOk'


def test_turkish_and_portuguese_letters_stay_in_their_words() -> None:
    assert WordTokenizer("turkish").tokenize("IŞIK, İyi çağrı") == ["ışık", "iyi", "çağrı"]
    assert WordTokenizer("portuguese").tokenize("São João não") == ["são", "joão", "não"]
    scores = Rouge("turkish").compute(predictions=["çok iyi"], references=["şok iyi"])
    assert scores["rouge1"] == pytest.approx(50)


def test_only_english_is_stemmed() -> None:
    assert WordTokenizer("english").tokenize("running cats") == ["run", "cat"]
    assert WordTokenizer("portuguese").tokenize("running cats") == ["running", "cats"]


def test_fingerprint_tells_languages_apart() -> None:
    assert fingerprint("english") != fingerprint("turkish")
    assert fingerprint("english") == fingerprint("english")
