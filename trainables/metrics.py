"""ROUGE as an evaluate.Metric inside the project, so that no node downloads code.

On ASCII text the scores are rouge_score's, which counts the words and word pairs. What is our own:
the tokenizer keeps every Unicode letter (rouge_score's erases all but a-z, so that Turkish and
Portuguese words fall apart), both sides are split into sentences before ROUGE-Lsum, which otherwise
is ROUGE-L under another name, and common subsequences are found faster (trainables/lcs.py): a GPU
waits for these scores.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version

import datasets
import evaluate
from nltk.stem.porter import PorterStemmer
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer

from trainables.lcs import lcs_f1, summary_lcs_f1
from trainables.tasks.base import Language

NGRAM_TYPES = ("rouge1", "rouge2")
ROUGE_TYPES = (*NGRAM_TYPES, "rougeL", "rougeLsum")
MIN_STEMMED_CHARACTERS = 4
"""Shorter words are not stemmed (rouge_score.tokenize)."""
_WORD = re.compile(r"[^\W_]+")
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'\u201d\u2019)\]]*\s+|\n+")
_TURKISH_LOWER = str.maketrans({"I": "\N{LATIN SMALL LETTER DOTLESS I}", "İ": "i"})


class Rouge(evaluate.Metric):  # type: ignore[misc]
    """ROUGE-1, 2, L and Lsum: mean F1 over the rows, 0 to 100."""

    def __init__(self, language: Language = "english") -> None:
        self.language = language
        # evaluate makes its cache folder even if nothing is cached; a home may be read-only.
        super().__init__(keep_in_memory=True, cache_dir=tempfile.gettempdir(), seed=0)

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description="Overlap of words, word pairs and longest common subsequences.",
            citation="Lin, 2004: ROUGE, a package for automatic evaluation of summaries.",
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        rows = rouge_rows(predictions, references, self.language)
        return {name: sum(row[name] for row in rows) / len(rows) for name in ROUGE_TYPES}


def rouge_rows(
    predictions: Sequence[str], references: Sequence[str], language: Language
) -> list[dict[str, float]]:
    """ROUGE F1 of each row, 0 to 100; Rouge is their mean, a bootstrap resamples them."""
    tokenizer = WordTokenizer(language)
    scorer = RougeScorer(NGRAM_TYPES, tokenizer=tokenizer)
    rows = []
    for pair in zip(references, predictions, strict=True):
        sentences = [[tokenizer.tokenize(part) for part in _sentences(text)] for text in pair]
        words = [[word for sentence in side for word in sentence] for side in sentences]
        scores = {name: score.fmeasure for name, score in scorer.score(*pair).items()}
        scores |= {"rougeL": lcs_f1(*words), "rougeLsum": summary_lcs_f1(*sentences)}
        rows.append({name: 100.0 * scores[name] for name in ROUGE_TYPES})
    return rows


def by_sentence(text: str) -> str:
    """The text with one sentence a line, as ROUGE-Lsum wants it."""
    return "\n".join(_sentences(text))


def _sentences(text: str) -> list[str]:
    return [part for part in _SENTENCE_END.split(text.strip()) if part]


class WordTokenizer(Tokenizer):  # type: ignore[misc]
    """Lower-cased runs of Unicode letters and digits, stemmed if the language is English."""

    def __init__(self, language: Language) -> None:
        self._language = language

    def tokenize(self, text: str) -> list[str]:
        """Words of the text."""
        if self._language == "turkish":
            text = text.translate(_TURKISH_LOWER)
        words: list[str] = _WORD.findall(text.lower())
        return [_stem(word) for word in words] if self._language == "english" else words


def fingerprint(language: Language) -> str:
    """Digest of all that moves a score; scores with unlike fingerprints are never compared."""
    settings = {
        "metric": ROUGE_TYPES,
        "language": language,
        "word": _WORD.pattern,
        "sentence": _SENTENCE_END.pattern,
        "rouge_score": version("rouge_score"),
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


@lru_cache(maxsize=1)
def _stemmer() -> PorterStemmer:
    return PorterStemmer()


@lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    stem: str = _stemmer().stem(word) if len(word) >= MIN_STEMMED_CHARACTERS else word
    return stem
