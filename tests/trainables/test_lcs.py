"""Common subsequences, against rouge_score's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from trainables.lcs import lcs_f1, lcs_places, summary_lcs_f1

SENTENCES = st.lists(st.sampled_from("abcdefg"), max_size=24)
TEXTS = st.lists(SENTENCES, max_size=5)


@given(SENTENCES, SENTENCES)
def test_places_are_those_of_rouge_score(reference: list[str], candidate: list[str]) -> None:
    found = lcs_places(reference, candidate)[::-1]
    assert found == rouge_scorer.lcs_ind(reference, candidate)


@given(SENTENCES, SENTENCES)
def test_rouge_l_is_that_of_rouge_score(reference: list[str], candidate: list[str]) -> None:
    expected = rouge_scorer._score_lcs(reference, candidate).fmeasure
    assert lcs_f1(reference, candidate) == pytest.approx(expected, abs=1e-12)


@given(TEXTS, TEXTS)
def test_rouge_lsum_is_that_of_rouge_score(
    reference: list[list[str]], candidate: list[list[str]]
) -> None:
    expected = rouge_scorer._summary_level_lcs(reference, candidate).fmeasure
    assert summary_lcs_f1(reference, candidate) == pytest.approx(expected, abs=1e-12)
