"""One table into splits: by content, alike in labels, and near-equal texts never on two sides."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence

from trainables.data.rows import Document, digest_text, normalise
from trainables.errors import SweepAborted

HELD_FRAC = 0.1
"""Share of the rows in each of validation and test."""
MIN_HELD = 20
"""Rows that each gets at least, where that leaves three fifths of a small table for training."""
MIN_ROWS = 10
"""Fewer rows are too few to be split."""
_ADDRESS = re.compile(r"https?://\S+|www\.\S+|(?:\brt\s+)?@\w+")
_SAME_LETTERS = str.maketrans(
    {"\N{LATIN SMALL LETTER DOTLESS I}": "i", "\N{COMBINING DOT ABOVE}": None}
)
"""Capitals of I and İ, whichever language lower-cased them."""


def hold_out(
    documents: Sequence[Document],
    missing: Sequence[str],
    get_key: Callable[[Document], str],
    get_stratum: Callable[[Document], str],
) -> dict[str, list[Document]]:
    """ "train" and the missing splits, each of which takes a tenth of the documents.

    Documents of one key stay together. Within a stratum the order of a digest of the keys decides:
    neither the rows' order in their file nor the sweep's seed moves a row to another split, and
    new rows move few. A stratum of three keys or more is in every split, any is in train.

    Args:
        missing: "validation", "test" or both.

    Raises:
        SweepAborted: there are too few documents.
    """
    if not missing:
        return {"train": list(documents)}
    groups: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        groups[get_key(document)].append(document)
    if len(groups) < MIN_ROWS:
        raise SweepAborted(
            f"the table has {len(groups)} usable rows of different content; a split takes "
            f"{MIN_ROWS} at least",
            "add rows, or give files called train, validation and test",
        )
    strata: dict[str, list[str]] = defaultdict(list)
    for key in sorted(groups, key=digest_text):
        strata[get_stratum(groups[key][0])].append(key)
    frac = max(round(len(groups) * HELD_FRAC), min(MIN_HELD, len(groups) // 5)) / len(groups)
    split_by_key: dict[str, str] = {}
    for keys in strata.values():
        num_held = max(round(len(keys) * frac), int(len(keys) > len(missing)))  # frac: 1/5 at most
        names = [split for split in missing for _ in range(num_held)]
        names += ["train"] * (len(keys) - len(names))
        split_by_key |= zip(keys, names, strict=True)
    splits: dict[str, list[Document]] = {split: [] for split in ("train", *missing)}
    for document in documents:
        splits[split_by_key[get_key(document)]].append(document)
    return splits


def make_near_key(text: str) -> str:
    """The text's letters and digits alone, without case, addresses and mentions.

    Texts of one key say the same thing; a text with no letter left is its own key.
    """
    return "".join(re.findall(r"\w", _ADDRESS.sub(" ", fold_case(text)))) or normalise(text)


def fold_case(text: str) -> str:
    """The text in lower case, with Turkish and English i and I as one letter."""
    return unicodedata.normalize("NFKC", text).casefold().translate(_SAME_LETTERS)
