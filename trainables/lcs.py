"""Longest common subsequences of words by bit vectors: rouge_score's, some five times faster.

A row of the dynamic programme over (reference, candidate) grows by 0 or 1 from place to place, so
one integer of a bit a candidate word holds it (Hyyrö 2004, "Bit-parallel LCS-length computation
revisited"): bit j is 0 where the row grows at word j.
"""

from collections import Counter
from collections.abc import Sequence


def lcs_f1(reference: Sequence[str], candidate: Sequence[str]) -> float:
    """ROUGE-L's F1, 0 to 1."""
    if not reference or not candidate:
        return 0.0
    length = len(candidate) - _rows(reference, candidate)[-1].bit_count()
    return _f1(length, len(reference), len(candidate))


def summary_lcs_f1(reference: Sequence[Sequence[str]], candidate: Sequence[Sequence[str]]) -> float:
    """ROUGE-Lsum's F1, 0 to 1, of sentences; a word counts as often as both sides have it.

    As in rouge_score's _summary_level_lcs, after ROUGE 1.5.5.
    """
    left = Counter(word for sentence in candidate for word in sentence)
    left &= Counter(word for sentence in reference for word in sentence)
    hits = 0
    for sentence in reference:
        places = set().union(*(lcs_places(sentence, other) for other in candidate))
        for place in sorted(places):
            if left[sentence[place]] > 0:
                left[sentence[place]] -= 1
                hits += 1
    return _f1(hits, sum(map(len, reference)), sum(map(len, candidate)))


def lcs_places(reference: Sequence[str], candidate: Sequence[str]) -> list[int]:
    """Places in the reference of one longest common subsequence: that of rouge_score's lcs_ind."""
    rows = _rows(reference, candidate)
    i, j = len(reference), len(candidate)
    places: list[int] = []
    while i > 0 and j > 0:
        if reference[i - 1] == candidate[j - 1]:
            i, j = i - 1, j - 1
            places.append(i)
        elif _length(rows[i], j - 1) > _length(rows[i - 1], j):
            j -= 1
        else:
            i -= 1
    return places


def _rows(reference: Sequence[str], candidate: Sequence[str]) -> list[int]:
    """The programme's rows, the empty reference's first."""
    every = (1 << len(candidate)) - 1
    matches: dict[str, int] = {}
    for place, word in enumerate(candidate):
        matches[word] = matches.get(word, 0) | 1 << place
    rows = [every]
    for word in reference:
        row = rows[-1]
        common = row & matches.get(word, 0)
        rows.append((row + common | row - common) & every)
    return rows


def _length(row: int, num_words: int) -> int:
    """Common subsequence with the candidate's first words."""
    return num_words - (row & (1 << num_words) - 1).bit_count()


def _f1(hits: int, num_reference: int, num_candidate: int) -> float:
    if not hits:
        return 0.0
    precision, recall = hits / num_candidate, hits / num_reference
    return 2 * precision * recall / (precision + recall)
