"""Text as sentences, for ROUGE-Lsum: where English, Turkish and Portuguese ones end.

A sentence ends at a newline, and at white space after . ! ? or an ellipsis (with closing quotes or
brackets), but not
* at a quoted or bracketed end, or an ellipsis, that a lower-case word follows;
* after a title ("Dr.", "Sra."; "St." is always Saint), or after a capital letter alone ("J. Smith",
  "T.C."; the English "I" is a word);
* after an abbreviation that closes a phrase ("etc.", "vb.", "p.m."), unless a capital follows;
* after an abbreviation that precedes a number ("No.", "pág."), if a digit follows;
* after a number that begins its sentence ("1. Milk"), or that a lower-case word follows;
* in Turkish, after a number of up to three digits or a Roman one: "19. yüzyıl", "II. Mahmud".
"3.5", "10.30" and "example.com" have no white space and never end one.
"""
# ruff: noqa: RUF001, RUF002 - quotes and dotless letters that look like others

import re
from collections.abc import Mapping

from trainables.config import Language
from trainables.metrics.words import lower

STOP = re.compile(r"(?P<end>[.!?…]+)(?P<closing>[\"'”’»)\]]*)\s+")
OPENING = "\"'“‘«(["
NUMBER = re.compile(r"\d+")
TURKISH_ORDINAL = re.compile(r"\d{1,3}|[IVX]{2,}|[LC][IVXLC]+")


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


TITLES: Mapping[Language, frozenset[str]] = {
    "english": _set(
        "mr mrs ms mx dr prof rev fr gen sen rep gov col capt cpt lt sgt hon st mt vs e.g i.e"
    ),
    "turkish": _set(
        "dr prof doç yrd arş gör av alb gen org korg yzb bşk müh mim sn hz bkz örn çev ed mah cad "
        "sok apt"
    ),
    "portuguese": _set(
        "sr sra srs sras srta dr dra drs dras prof profa profª eng exmo exma gen cel ten sgt av "
        "sto sta p.ex ex"
    ),
}
"""Abbreviations that never end a sentence: what they introduce follows."""
PHRASE_ENDS: Mapping[Language, frozenset[str]] = {
    "english": _set("etc inc ltd co corp jr sr bros a.m p.m approx dept est min max"),
    "turkish": _set("vb vs vd ltd şti tic san yy dk tl"),
    "portuguese": _set("etc ltda cia jr s.a a.c d.c obs aprox min máx tel"),
}
"""Abbreviations that end a sentence only before a capital."""
BEFORE_NUMBERS: Mapping[Language, frozenset[str]] = {
    "english": _set("no nos p pp vol fig ch art sec ver"),
    "turkish": _set("no s sf sy c md"),
    "portuguese": _set("n nº p pp pág págs vol fig cap art arts"),
}
"""Abbreviations that end a sentence unless a digit follows."""


def sentences_of(text: str, language: Language) -> list[str]:
    """The text's sentences, without the white space around them."""
    sentences = []
    for line in text.splitlines():
        begin = 0
        for stop in STOP.finditer(line):
            if _is_end(line, begin, stop, language):
                sentences.append(line[begin : stop.end()].strip())
                begin = stop.end()
        sentences.append(line[begin:].strip())
    return [sentence for sentence in sentences if sentence]


def _is_end(line: str, begin: int, stop: re.Match[str], language: Language) -> bool:
    following = line[stop.end() : stop.end() + 1]
    is_soft = stop["closing"] or (stop["end"] != "." and stop["end"][-1] in ".…")
    if is_soft and following.islower():
        return False
    words = line[begin : stop.start()].rsplit(maxsplit=1)
    if stop["end"] != "." or not words or not following:
        return True
    return _ends_after(words[-1].lstrip(OPENING), len(words) == 1, following, language)


def _ends_after(word: str, is_first: bool, following: str, language: Language) -> bool:
    """Whether a period after the word, before that character, ends the sentence."""
    small = lower(word, language)
    if NUMBER.fullmatch(word) and (is_first or following.islower()):
        return False
    if language == "turkish" and TURKISH_ORDINAL.fullmatch(word):
        return False
    if small in TITLES[language]:
        return False
    if small in PHRASE_ENDS[language]:
        return following.isupper()
    if small in BEFORE_NUMBERS[language]:
        return not following.isdigit()
    return not _is_initial(word, language)


def _is_initial(word: str, language: Language) -> bool:
    """A capital letter alone, or after other letters with periods: "J", "U.S", "T.C"."""
    last = word.rpartition(".")[2]
    return len(last) == 1 and last.isupper() and not (language == "english" and word == "I")
