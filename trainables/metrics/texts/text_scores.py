"""Scores of one answer against one reference, 0 to 100: exact match, token F1, JSON fields.

A score of many rows is their mean; of several references the best one counts.
"""

import json
import string
import unicodedata
from collections import Counter
from collections.abc import Iterator

from trainables.config import Language
from trainables.metrics.words import lower

ENGLISH_ARTICLES = frozenset(("a", "an", "the"))


def exact_match(answer: str, reference: str, language: Language) -> float:
    """Whether both are equal to the letter, white space around them aside."""
    return 100.0 * (answer.strip() == reference.strip())


def token_f1(answer: str, reference: str, language: Language) -> float:
    """F1 of the words that both have, as SQuAD's script counts them (Rajpurkar et al. 2016).

    Case, punctuation of any script and, in English, articles do not count.
    """
    said, right = _normalise(answer, language), _normalise(reference, language)
    if not said or not right:
        return 100.0 * (said == right)
    shared = sum((Counter(said) & Counter(right)).values())
    return 200.0 * shared / (len(said) + len(right))


def json_fields(answer: str, reference: str, language: Language) -> float:
    """Share of the fields that are right, of all that the answer or the reference has.

    A field is a value with the path of keys and places that leads to it. An answer that is no JSON
    has none right.

    Raises:
        ValueError: the reference is no JSON.
    """
    right = dict(list_fields(json.loads(reference)))
    try:
        said = dict(list_fields(json.loads(answer)))
    except (ValueError, RecursionError):
        return 0.0
    num_right = sum(path in said and _is_equal(said[path], right[path]) for path in right)
    return 100.0 * num_right / len(said.keys() | right.keys())


def list_fields(
    value: object, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], object]]:
    """Each path of a JSON value with what stands there; an empty object or list is a field."""
    if isinstance(value, dict | list) and value:
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in parts:
            yield from list_fields(part, (*path, key))
    else:
        yield path, value


def _is_equal(one: object, other: object) -> bool:
    """Equal as JSON: 1 is 1.0, and is not true."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def _normalise(text: str, language: Language) -> list[str]:
    kept = "".join(char for char in lower(text, language) if not _is_punctuation(char))
    words = kept.split()
    return [w for w in words if w not in ENGLISH_ARTICLES] if language == "english" else words


def _is_punctuation(char: str) -> bool:
    return char in string.punctuation or unicodedata.category(char)[0] == "P"
