"""ROUGE: rouge_score's scores, for every Unicode letter, while a GPU waits.

On ASCII English text with one sentence a line the scores are rouge_score's with its stemmer. What
is our own: words keep every letter (rouge_score's erases all but a-z, so that Turkish and
Portuguese words fall apart) and both sides are split into sentences before ROUGE-Lsum, which
otherwise is ROUGE-L under another name (words.py and sentences.py have the rules); and what depends
on the references alone is prepared once for all the adapters that answer the same rows.
"""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from trainables.config import Language
from trainables.metrics.lcs import f1, lcs_length, lcs_positions, masks_of
from trainables.metrics.sentences import sentences_of
from trainables.metrics.words import words_of

ROUGE_TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def rouge_rows(
    predictions: Sequence[str], references: Sequence[str], language: Language
) -> list[dict[str, float]]:
    """ROUGE F1 of each row, 0 to 100; a score is their mean, a bootstrap resamples them.

    References that were scored lately in this process are not prepared again.

    Raises:
        ValueError: there are more or fewer predictions than references.
    """
    prepared = _prepare_references(tuple(references), language)
    return [
        reference.score(_words_by_sentence(text, language))
        for reference, text in zip(prepared, predictions, strict=True)
    ]


@lru_cache(maxsize=4)
def _prepare_references(texts: tuple[str, ...], language: Language) -> "list[_Reference]":
    return [_Reference(text, language) for text in texts]


class _Reference:
    """What the scores need of one target."""

    def __init__(self, text: str, language: Language) -> None:
        parts = _words_by_sentence(text, language)
        self.sentences = [(masks_of(part), len(part)) for part in parts]
        flat = [word for part in parts for word in part]
        self.num_words = len(flat)
        self.masks = masks_of(flat)
        self.pairs = Counter(pairwise(flat))

    def score(self, candidate: list[list[str]]) -> dict[str, float]:
        """ROUGE F1, 0 to 100, of a candidate's sentences."""
        flat = [word for part in candidate for word in part]
        counts = {word: n for word, n in Counter(flat).items() if word in self.masks}
        pairs = Counter(pairwise(flat))
        num_words, num_pairs = len(flat), max(len(flat) - 1, 0)
        shared = sum(min(n, self.masks[word].bit_count()) for word, n in counts.items())
        shared_pairs = sum(min(n, pairs[pair]) for pair, n in self.pairs.items() if pair in pairs)
        common = lcs_length(self.masks, self.num_words, flat) if counts else 0
        hits = self._summary_hits(candidate, counts) if counts else 0
        return {
            "rouge1": 100.0 * f1(shared, self.num_words, num_words),
            "rouge2": 100.0 * f1(shared_pairs, self.num_words - 1, num_pairs),
            "rougeL": 100.0 * f1(common, self.num_words, num_words),
            "rougeLsum": 100.0 * f1(hits, self.num_words, num_words),
        }

    def _summary_hits(self, candidate: list[list[str]], counts: dict[str, int]) -> int:
        """Words of the reference on a common subsequence with any of the candidate's sentences.

        A word counts at most as often as the candidate has it: rouge_score's _summary_level_lcs,
        after ROUGE 1.5.5.
        """
        found_in_reference: Counter[str] = Counter()
        for masks, num_words in self.sentences:
            union = 0
            for part in candidate:
                union |= lcs_positions(masks, num_words, part)
            for word in masks.keys() & counts.keys() if union else ():
                found_in_reference[word] += (union & masks[word]).bit_count()
        return sum(min(n, counts[word]) for word, n in found_in_reference.items())


def _words_by_sentence(text: str, language: Language) -> list[list[str]]:
    return [words_of(sentence, language) for sentence in sentences_of(text, language)]
