"""BLEU and chrF of a whole set of answers, 0 to 100, equal to sacrebleu's with its defaults.

Both are functions of counts that add up over the rows. So the score of any resample of the rows
comes from the same counts, and no text is read twice.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

MAX_WORDS = 4
"""BLEU's longest n-gram (Papineni et al. 2002)."""
MAX_CHARACTERS, BETA = 6, 2
"""chrF's longest n-gram, and the weight of its recall (Popovic 2016, chrF2)."""

_ENTITIES = {"&quot;": '"', "&amp;": "&", "&lt;": "<", "&gt;": ">"}
_RULES_13A = (
    (re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])"), r" \1 "),
    (re.compile(r"([^0-9])([\.,])"), r"\1 \2 "),
    (re.compile(r"([\.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)
"""mteval-v13a's rules, in their order: punctuation apart, but not within numbers."""


class SummedScore(NamedTuple):
    """A score of counts that are summed over rows."""

    count_row: Callable[[str, Sequence[str]], list[int]]
    """The counts of an answer beside its references."""
    score_sums: Callable[[Sequence[float]], float]
    """The score of the sums."""


def count_bleu(answer: str, references: Sequence[str]) -> list[int]:
    """Words of the answer and of the reference nearest in length; hits, and n-grams, by order."""
    said = split_words_13a(answer)
    counted = _count_ngrams(said)
    best: Counter[tuple[str, ...]] = Counter()
    lengths = []
    for reference in references:
        words = split_words_13a(reference)
        best |= _count_ngrams(words)
        lengths.append(len(words))
    hits, totals = [0] * MAX_WORDS, [0] * MAX_WORDS
    for ngram, number in counted.items():
        totals[len(ngram) - 1] += number
        hits[len(ngram) - 1] += min(number, best[ngram])
    nearest = min(lengths, key=lambda length: (abs(length - len(said)), length))
    return [len(said), nearest, *hits, *totals]


def score_bleu(sums: Sequence[float]) -> float:
    """BLEU with exponential smoothing, as mteval-v13a smooths (sacrebleu's default)."""
    num_said, num_right = sums[:2]
    hits, totals = sums[2 : 2 + MAX_WORDS], sums[2 + MAX_WORDS :]
    if not any(hits):
        return 0.0
    smoothing, logs = 1.0, 0.0
    for hit, total in zip(hits, totals, strict=True):
        if total == 0:
            return 0.0
        smoothing *= 1.0 if hit else 2.0
        logs += math.log(100.0 * hit / total if hit else 100.0 / (smoothing * total))
    brevity = math.exp(1 - num_right / num_said) if num_said < num_right else 1.0
    return brevity * math.exp(logs / MAX_WORDS)


def split_words_13a(text: str) -> list[str]:
    """Words and marks as mteval-v13a separates them."""
    text = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, char in _ENTITIES.items():
        text = text.replace(entity, char)
    text = f" {text} "
    for pattern, replacement in _RULES_13A:
        text = pattern.sub(replacement, text)
    return text.split()


def _count_ngrams(words: Sequence[str]) -> Counter[tuple[str, ...]]:
    return Counter(
        tuple(words[first : first + length])
        for length in range(1, MAX_WORDS + 1)
        for first in range(len(words) - length + 1)
    )


def count_chrf(answer: str, references: Sequence[str]) -> list[int]:
    """n-grams of the answer, of the best reference, and of both, for each length."""
    said = _count_characters(answer)
    counts = [_compare(said, _count_characters(reference)) for reference in references]
    return max(counts, key=score_chrf)


def score_chrf(sums: Sequence[float]) -> float:
    """F2 of the mean precision and the mean recall, over the lengths that both sides have."""
    triples = [sums[first : first + 3] for first in range(0, len(sums), 3)]
    shared = [(hits / said, hits / right) for said, right, hits in triples if said and right]
    if not shared:
        return 0.0
    precision = sum(one for one, _ in shared) / len(shared)
    recall = sum(one for _, one in shared) / len(shared)
    if precision + recall == 0:
        return 0.0
    weight = float(BETA**2)
    return 100 * (1 + weight) * precision * recall / (weight * precision + recall)


def _count_characters(text: str) -> list[Counter[str]]:
    joined = "".join(text.split())
    return [
        Counter(joined[first : first + length] for first in range(len(joined) - length + 1))
        for length in range(1, MAX_CHARACTERS + 1)
    ]


def _compare(said: Sequence[Counter[str]], right: Sequence[Counter[str]]) -> list[int]:
    counts = []
    for mine, theirs in zip(said, right, strict=True):
        hits = sum(min(number, theirs[part]) for part, number in mine.items() if part in theirs)
        # an order that the reference has not is no fault of the answer
        counts += [mine.total() if theirs else 0, theirs.total(), hits]
    return counts


BLEU = SummedScore(count_bleu, score_bleu)
CHRF = SummedScore(count_chrf, score_chrf)
