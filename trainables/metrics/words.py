"""Text as the words that ROUGE counts: every letter of English, Turkish, Portuguese and others.

Words are runs of letters and digits of any script, with the marks that stand on them:
* both sides are brought to NFC, and characters without width (soft hyphens, joiners) are removed;
* lower-casing is Turkish in Turkish (I to ı, İ to i); a dot that lower-casing sets on an i is
  removed in every language, so that "İzmir" is one word and equals "izmir";
* everything else separates words, apostrophes of every shape too, as in rouge_score: "don't" is
  "don" and "t", "Ankara'da" is "ankara" and "da". So a name counts although its suffix is wrong;
* circumflexes count: "kâr" (profit) is not "kar" (snow).
English words of four or more characters are stemmed by Porter's rules, as rouge_score does.
"""
# ruff: noqa: RUF002 - Turkish has a dotless i

import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

from trainables.config import Language

if TYPE_CHECKING:
    from nltk.stem.porter import PorterStemmer

MIN_STEMMED_CHARACTERS = 4
"""Shorter words are not stemmed (rouge_score.tokenize)."""
ASCII_WORD = re.compile(r"[a-z0-9]+")
WORD = re.compile(r"(?:[^\W_][\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\ufe20-\ufe2f]*)+")
"""Marks that no composed letter has stay on their letter."""
UNSEEN = dict.fromkeys([0xAD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF])
APOSTROPHES = dict.fromkeys([0x02BB, 0x02BC, 0x02BD, 0xA78C], "'")
"""Unicode counts these shapes of the apostrophe as letters."""
TURKISH_LOWER = {"I": "\N{LATIN SMALL LETTER DOTLESS I}", "İ": "i"}
DOTTED_I = "i\N{COMBINING DOT ABOVE}"


def words_of(text: str, language: Language) -> list[str]:
    """The text's words: lower-cased, and stemmed if the language is English."""
    lowered = lower(text, language)
    words: list[str] = (ASCII_WORD if lowered.isascii() else WORD).findall(lowered)
    return list(map(_stem, words)) if language == "english" else words


def lower(text: str, language: Language) -> str:
    """The text in lower case and in NFC, with apostrophes of one shape."""
    if text.isascii() and language != "turkish":
        return text.lower()
    text = unicodedata.normalize("NFC", text.translate(UNSEEN)).translate(APOSTROPHES)
    if language == "turkish":
        for capital, small in TURKISH_LOWER.items():
            text = text.replace(capital, small)
    return unicodedata.normalize("NFC", text.lower().replace(DOTTED_I, "i"))


@lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    stem: str = _stemmer().stem(word) if len(word) >= MIN_STEMMED_CHARACTERS else word
    return stem


@lru_cache(maxsize=1)
def _stemmer() -> "PorterStemmer":
    from nltk.stem.porter import PorterStemmer  # a second that the names of metrics do not need

    return PorterStemmer()
