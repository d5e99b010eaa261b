"""What a task is: rows of prompt and target, in three splits, and the metric that ranks trials.

Tasks run before any GPU is used, so nothing here or in a task's file may import torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from trainables.config import Kind, Metric

Language = Literal["english", "turkish", "portuguese"]


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How the answers to a task's rows are scored."""

    kind: Kind = "summarize"
    """Summaries are generated and compared; labels are chosen by their likelihood."""
    language: Language = "english"
    """Of the targets; ROUGE lower-cases and stems by it."""
    labels: tuple[str, ...] = ()
    """The answers among which a classifier chooses, in a fixed order."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One example."""

    id: str
    """The dataset's own name of the row, or its place in its file."""
    prompt: str
    """Text of the user message."""
    target: str
    """Text that the assistant should answer."""


@dataclass(frozen=True, kw_only=True)
class Splits:
    """A task's rows after cleaning."""

    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    test: tuple[Row, ...]
    counts: dict[str, int]
    """Rows kept and dropped, by name, e.g. {"train": 14152, "train also in test": 42}."""


class Task(Protocol):
    """A dataset, the prompt made of it, and the metric."""

    @property
    def name(self) -> str:
        """Name on the command line."""

    @property
    def metric(self) -> Metric:
        """The score that ranks trials."""

    @property
    def dataset(self) -> str:
        """Name of the default dataset for model cards, with its revision."""

    @property
    def scoring(self) -> Scoring:
        """How answers are scored."""

    @property
    def prompt_template(self) -> str:
        """User message with the columns' names in braces."""

    def load(self, data: str | None) -> Splits:
        """Read and clean the rows: from data (folder or file), or the default dataset if None.

        Raises:
            SweepAborted: the data cannot be read or lacks a split, a column or rows.
        """


@dataclass(frozen=True, kw_only=True)
class Document:
    """One row before the prompt is made: a source text and its target."""

    id: str
    source: str
    target: str


def drop_blank(documents: Sequence[Document], split: str, counts: dict[str, int]) -> list[Document]:
    """Drop the documents without a source or a target, and count them."""
    kept = [d for d in documents if d.source.strip() and d.target.strip()]
    counts[f"{split} blank"] = len(documents) - len(kept)
    return kept


def drop_shared(
    documents: Sequence[Document],
    split: str,
    others: Mapping[str, Sequence[Document]],
    counts: dict[str, int],
) -> list[Document]:
    """Drop the documents whose source also stands in another split, and count them by split.

    A document shared with two splits counts for each, so the counts equal the overlaps.
    """
    kept = list(documents)
    for other, other_documents in others.items():
        sources = {normalise(d.source) for d in other_documents}
        counts[f"{split} also in {other}"] = sum(normalise(d.source) in sources for d in documents)
        kept = [d for d in kept if normalise(d.source) not in sources]
    return kept


def drop_duplicates(
    documents: Sequence[Document], split: str, counts: dict[str, int]
) -> list[Document]:
    """Keep the first of the documents that share a source, and count the others."""
    first: dict[str, Document] = {}
    for document in documents:
        first.setdefault(normalise(document.source), document)
    counts[f"{split} duplicates"] = len(documents) - len(first)
    return list(first.values())


def normalise(text: str) -> str:
    """The text with every run of white space as one space: the form in which texts are compared."""
    return " ".join(text.split())
