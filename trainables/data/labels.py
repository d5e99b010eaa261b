"""Labels of a classification table: cleaned, named and checked."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from trainables.data.rows import Document, normalise
from trainables.data.stratified import fold_case
from trainables.errors import SweepAborted

MAX_LABELS = 1000
"""More different targets, or more than half as many as rows, are taken for texts."""
MAX_SHOWN = 20
"""Labels that are counted one by one in words."""


def clean_label(text: str) -> str:
    """The label in one line and composed (NFC), as Qwen's tokenizer has it; a whole number, as a
    spreadsheet may keep it, without its ".0"."""
    text = unicodedata.normalize("NFC", text)
    whole = re.fullmatch(r"([+-]?\d+)[.,]0+", text.strip())
    return whole[1] if whole else normalise(text)


def read_value(text: str, names: Mapping[str, str], words: Mapping[str, str]) -> str:
    """The value that a cell means: what stands there, cleaned, or what a word stands for.

    Args:
        names: label by value.
        words: value by word, as fold writes it.
    """
    value = clean_label(text)
    return value if value in names else words.get(fold_case(value), value)


def read_names(pairs: Sequence[str]) -> dict[str, str]:
    """VALUE=NAME pairs as a mapping; several values may have one name.

    Raises:
        SweepAborted: a pair is none, or names a value again.
    """
    names: dict[str, str] = {}
    for pair in pairs:
        value, _, name = (part.strip() for part in pair.partition("="))
        if not value or not name or value in names:
            raise SweepAborted(
                f"--label-names has {pair!r}, which is no VALUE=NAME or repeats a value",
                "give each value once: --label-names 0=neutral 1=negative",
            )
        names[value] = name
    return names


def rename_labels(
    documents: Sequence[Document], names: Mapping[str, str], column: str
) -> list[Document]:
    """The documents with their labels' names.

    Raises:
        SweepAborted: a label has no name.
    """
    unknown = sorted({d.target for d in documents} - set(names), key=_make_sort_key)
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise SweepAborted(
            f"the column {column} holds {', '.join(map(repr, unknown[:5]))}{more}, which "
            f"--label-names ({', '.join(names)}) does not name",
            f"name each value, e.g. {unknown[0]}=NAME, or remove its rows",
        )
    return [replace(d, target=names[d.target]) for d in documents]


def drop_contradictory(
    documents: Sequence[Document], split: str, counts: dict[str, int]
) -> list[Document]:
    """Drop every document whose source also stands with another label, and count them."""
    labels: dict[str, set[str]] = defaultdict(set)
    for document in documents:
        labels[normalise(document.source)].add(document.target)
    kept = [d for d in documents if len(labels[normalise(d.source)]) == 1]
    counts[f"{split} contradictory"] = len(documents) - len(kept)
    return kept


def check_label_count(documents: Sequence[Document], column: str) -> None:
    """Refuse targets that are no labels, before anything is compared by them.

    Raises:
        SweepAborted: too many different ones, or labels that differ only in case.
    """
    labels = sorted({d.target for d in documents}, key=_make_sort_key)
    most = min(MAX_LABELS, len(documents) // 2)
    if len(labels) > most:
        raise SweepAborted(
            f"the column {column} holds {len(labels):,} different values in {len(documents):,} "
            f"rows; classification takes {most} labels at most",
            "add --kind summarize if they are texts, or name another column: --target",
        )
    by_folded: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        by_folded[label.casefold()].append(label)
    alike = next((same for same in by_folded.values() if len(same) > 1), None)
    if alike:
        pairs = " ".join(f"'{value}={alike[0]}'" for value in alike)
        raise SweepAborted(
            f"the column {column} holds labels that differ only in case: {', '.join(alike)}",
            f"give them one name, and every other label its own: --label-names {pairs}",
        )


def find_labels(
    splits: Mapping[str, Sequence[Document]], names: Mapping[str, str], column: str
) -> tuple[str, ...]:
    """The labels of the training rows, in the order of their names, else sorted.

    Raises:
        SweepAborted: a single label, or one of another split that train lacks.
    """
    trained = {d.target for d in splits["train"]}
    ordered = dict.fromkeys([*names.values(), *sorted(trained, key=_make_sort_key)])
    labels = tuple(label for label in ordered if label in trained)
    for split in ("validation", "test"):
        lacking = sorted({d.target for d in splits[split]} - trained, key=_make_sort_key)
        if lacking:
            raise SweepAborted(
                f"the {split} split has the label {lacking[0]!r}, which no training row has",
                f"add such rows to train, or remove them from {split}; one file alone is split "
                "so that every label is in train",
            )
    if len(labels) < 2:
        error = f"no training row has a label in the column {column}"
        if labels:
            error = (
                f"the column {column} holds one label only, {labels[0]!r}; a classifier chooses "
                "among two or more"
            )
        raise SweepAborted(error, "name the column of the labels: --target")
    return labels


def describe_shares(documents: Sequence[Document], labels: Sequence[str]) -> str:
    """How many documents have each label, in words."""
    counts = Counter(d.target for d in documents)
    if len(labels) <= MAX_SHOWN:
        return ", ".join(f"{label} {counts[label]:,}" for label in labels)
    shares = [counts[label] for label in labels]
    return f"{len(labels):,} labels of {min(shares):,} to {max(shares):,} rows"


def find_joined_label(labels: Sequence[str]) -> str | None:
    """A label such as "a, b" among labels that are joined of the same parts; None if none is."""
    for separator in (",", ";", "|"):
        parts = {label: [part.strip() for part in label.split(separator)] for label in labels}
        uses = Counter(part for some in parts.values() for part in some)
        for label, some in parts.items():
            if len(some) > 1 and all(uses[part] > 1 for part in some):
                return label
    return None


def _make_sort_key(label: str) -> tuple[float, str]:
    """Numbers by their value, before words."""
    return (float(label), label) if re.fullmatch(r"[+-]?\d{1,15}", label) else (float("inf"), label)
