"""Exact match, token F1 and JSON fields against values counted by hand and SQuAD's script."""

import re
import string
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.config import Language
from trainables.metrics.texts.text_scores import exact_match, json_fields, token_f1

ASCII = st.lists(
    st.sampled_from(["the", "A", "an", "Cat", "cat,", "don't", "x", "--", "7"]), max_size=8
).map(" ".join)


def squad_f1(answer: str, reference: str) -> float:
    """As https://rajpurkar.github.io/SQuAD-explorer's evaluate-v1.1.py counts it."""

    def normalise(text: str) -> list[str]:
        text = "".join(c for c in text.lower() if c not in string.punctuation)
        return re.sub(r"\b(a|an|the)\b", " ", text).split()

    said, right = normalise(answer), normalise(reference)
    shared = sum((Counter(said) & Counter(right)).values())
    if not said or not right:
        return float(said == right)
    if shared == 0:
        return 0.0
    precision, recall = shared / len(said), shared / len(right)
    return 2 * precision * recall / (precision + recall)


@given(ASCII, ASCII)
def test_token_f1_of_english_is_squads(answer: str, reference: str) -> None:
    expected = 100 * squad_f1(answer, reference)
    assert token_f1(answer, reference, "english") == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "reference", "language", "expected"),
    [
        ("the red car", "a red bus.", "english", 50.0),  # 1 of 2 and 1 of 2
        ("İzmir", "izmir", "turkish", 100.0),
        ("a casa", "casa", "portuguese", 200 / 3),  # an article of English alone is dropped
        ("«sim»", "sim", "portuguese", 100.0),
        ("", "yes", "english", 0.0),
    ],
)
def test_token_f1_by_hand(answer: str, reference: str, language: Language, expected: float) -> None:
    assert token_f1(answer, reference, language) == pytest.approx(expected)


def test_exact_match_is_to_the_letter() -> None:
    assert exact_match(" Yes\n", "Yes", "english") == 100.0
    assert exact_match("yes", "Yes", "english") == 0.0


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('{"a": 1, "b": {"c": [1, 2]}}', 100.0),
        ('{"b": {"c": [1, 2]}, "a": 1.0}', 100.0),
        ('{"a": 1, "b": {"c": [1, 3]}}', 200 / 3),
        ('{"a": 1}', 100 / 3),
        ('{"a": 1, "b": {"c": [1, 2]}, "d": 0}', 75.0),  # a field that was invented
        ('{"a": true, "b": {"c": [1, 2]}}', 200 / 3),  # true is not 1
        ('{"a": "1", "b": {"c": [1, 2]}}', 200 / 3),
        ('{"a": 1, "b": {"c": [1, 2]', 0.0),
        ("[" * 100_000, 0.0),
        ("", 0.0),
    ],
)
def test_fields_of_json_by_hand(answer: str, expected: float) -> None:
    found = json_fields(answer, '{"a": 1, "b": {"c": [1, 2]}}', "english")
    assert found == pytest.approx(expected)


def test_json_without_fields_is_equal_or_not() -> None:
    assert json_fields("{}", "{}", "english") == 100.0
    assert json_fields("[]", "{}", "english") == 0.0
    assert json_fields("7", "7", "english") == 100.0
