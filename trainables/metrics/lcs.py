"""Longest common subsequences of words by bit vectors: a few operations on integers a word.

A column of the dynamic programme over (reference, candidate) grows by 0 or 1 from word to word,
so one integer of a bit a reference word holds it (Hyyrö 2004, "Bit-parallel LCS-length computation
revisited"): bit i is 0 where the column grows at word i. The bits belong to the reference, because
one set of references is scored against the answers of many adapters.
"""

from collections.abc import Mapping, Sequence

Masks = Mapping[str, int]
"""The positions of each word of a reference, as bits."""


def masks_of(reference: Sequence[str]) -> dict[str, int]:
    """The positions of each word, as bits."""
    masks: dict[str, int] = {}
    for index, word in enumerate(reference):
        masks[word] = masks.get(word, 0) | 1 << index
    return masks


def lcs_length(masks: Masks, num_reference: int, candidate: Sequence[str]) -> int:
    """Words of a longest common subsequence of the reference and the candidate."""
    every = (1 << num_reference) - 1
    column = every
    for word in candidate:
        common = column & masks.get(word, 0)
        if common:
            column = (column + common | column - common) & every
    return num_reference - column.bit_count()


def lcs_positions(masks: Masks, num_reference: int, candidate: Sequence[str]) -> int:
    """Positions in the reference, as bits, of one longest common subsequence.

    Of several it is the one that rouge_score's lcs_ind backtracks to: from the last words on, along
    the first of these that holds: both words are equal; the reference's word is not needed; the
    candidate's is not. A column's zero bits are the positions where the reference's word is needed,
    so that one integer tells how far to go back.
    """
    every = (1 << num_reference) - 1
    column, columns = every, []
    for word in candidate:
        mask = masks.get(word, 0)
        common = column & mask
        if common:
            column = (column + common | column - common) & every
        columns.append((mask, every ^ column))
    positions, left = 0, every
    for mask, needed in reversed(columns):
        stop = ((mask | needed) & left).bit_length()
        if not stop:
            break
        if mask >> stop - 1 & 1:
            positions |= 1 << stop - 1
            left = (1 << stop - 1) - 1
        else:
            left = (1 << stop) - 1
    return positions


def f1(hits: int, num_reference: int, num_candidate: int) -> float:
    """F1, 0 to 1, of the words that both sides share."""
    if not hits:
        return 0.0
    precision, recall = hits / num_candidate, hits / num_reference
    return 2 * precision * recall / (precision + recall)
