"""Common subsequences, against rouge_score's own."""

from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from trainables.metrics.lcs import lcs_length, lcs_positions, masks_of

WORDS = st.lists(st.sampled_from("abcdefg"), max_size=24)


@given(WORDS, WORDS)
def test_places_are_those_of_rouge_score(reference: list[str], candidate: list[str]) -> None:
    places = lcs_positions(masks_of(reference), len(reference), candidate)
    found = [place for place in range(len(reference)) if places >> place & 1]
    assert found == rouge_scorer.lcs_ind(reference, candidate)


@given(WORDS, WORDS)
def test_length_is_that_of_the_table(reference: list[str], candidate: list[str]) -> None:
    length = lcs_length(masks_of(reference), len(reference), candidate)
    assert length == rouge_scorer._lcs_table(reference, candidate)[-1][-1]
