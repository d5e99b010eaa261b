"""What a task is: rows of prompt and target, in three splits, and the metric that ranks trials.

Tasks run before any GPU is used, so nothing here or in a task's file may import torch.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Literal, Protocol

from trainables.config import (
    Data,
    Kind,
    Language,
    Metric,
    TaskOptions,
    TrainedTurns,
    TrainingSettings,
)
from trainables.errors import SweepAborted
from trainables.shell import get_flag

SPLITS = ("train", "validation", "test")
Role = Literal["system", "user", "assistant"]
Added = Literal["", "repeated", "paraphrased", "noisy"]
USED_BY_ALL = ("augment_copies", "augment_noise", "paraphrases")
"""Options that every task heeds, since they change rows however those were read."""


@dataclass(frozen=True, kw_only=True)
class MetricCode:
    """A metric of the user's own, with its source, so that every node has it."""

    name: str
    """Name of its score in reports, or what the names of its scores begin with."""
    files: Mapping[str, str] = field(hash=False)
    """Source by file name, the main one first."""
    function: str | None
    """Function of the main file that scores; None of a module of evaluate."""
    key: str | None = None
    """Which of its scores was asked for."""

    @property
    def ranking_name(self) -> str:
        """Name of the score that was asked for."""
        return f"{self.name}_{self.key}" if self.key else self.name


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How the answers to a task's rows are scored."""

    kind: Kind = "summarize"
    """Summaries are generated and compared; labels are chosen by their likelihood."""
    language: Language = "english"
    """Language of the targets; ROUGE lower-cases and stems by it."""
    labels: tuple[str, ...] = ()
    """The answers among which a classifier chooses, in a fixed order."""
    metrics: tuple[str, ...] = ()
    """Metrics of this project that are asked for; those that are cheap need not be."""
    custom: tuple[MetricCode, ...] = ()
    """Metrics of the user's own."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str
    is_trained: bool = False
    """Whether the loss counts it; an assistant's alone."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One example: a conversation whose last turn is the answer."""

    id: str
    """The dataset's own name of the row, or its place in its file."""
    prompt: str
    """Text of the last user message."""
    target: str
    """Text that the assistant should answer."""
    history: tuple[Message, ...] = ()
    """The turns before the prompt: a system message, earlier questions and answers."""
    thought: str = ""
    """What the assistant thinks before it answers; trained on where thinking is asked for."""
    references: tuple[str, ...] = ()
    """Other right answers; the best of all counts."""
    cut_from: int = 0
    """Where in the prompt the text begins that may lose its end to make the row fit."""
    cut_to: int | None = None
    """Where that text ends; None is the prompt's end."""
    added: Added = ""
    """How it came into train; "" is a row of the data."""


@dataclass(frozen=True, kw_only=True)
class TableColumns:
    """What the columns of a task's tables are, by which rows of other tables become prompts too."""

    prompt: Mapping[str, str] = field(hash=False)
    """Column by the name that the prompt's template has for it; of a chat the conversation's."""
    target: str = ""
    """Column of the right answers; "" of conversations, which end with theirs."""
    label_names: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Label by value of the target; empty where the values are the labels."""
    label_words: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Value by what else may stand for it, without case."""
    system_prompt: str | None = None
    """System message of every row without one of its own."""
    train_on: TrainedTurns = "all"
    """Which answers of a conversation the loss counts: each is tokenised by itself."""


@dataclass(frozen=True, kw_only=True)
class Splits:
    """A task's rows after cleaning."""

    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    test: tuple[Row, ...]
    counts: dict[str, int]
    """Rows kept and dropped, by name, e.g. {"train": 14152, "train also in test": 42}."""
    scoring: Scoring
    """How answers are scored; a table's labels are known once it is read."""
    prompt_template: str
    """User message with the columns' names in braces."""
    source: str = ""
    """Which of these names is the text that a long prompt may lose the end of."""
    notes: tuple[str, ...] = ()
    """How the data was read where that is not plain, e.g. the encoding that was found."""
    columns: TableColumns | None = None
    """Where the prompts and targets came from; None in a run of an earlier version."""

    @property
    def added(self) -> dict[str, int]:
        """Training rows that the data does not have, by how they came in."""
        return dict(Counter(row.added for row in self.train if row.added))


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

    def load(self, data: Data) -> Splits:
        """Read and clean the rows: from data (files and folders), or the default dataset if None.

        Raises:
            SweepAborted: the data cannot be read or lacks a split, a column or rows.
        """


@dataclass(frozen=True, kw_only=True)
class Document:
    """One row before the prompt is made: a source text and its target."""

    id: str
    source: str
    target: str
    columns: Mapping[str, str] = field(default_factory=dict)
    """What else a prompt may name, e.g. a title."""
    history: tuple[Message, ...] = ()
    """The turns before the prompt."""
    thought: str = ""
    """What the assistant thinks before it answers."""
    references: tuple[str, ...] = ()
    """Other right answers."""
    keys: frozenset[str] = frozenset()
    """Marks by which two documents are one although their sources differ, e.g. an address."""
    unused: bytes = b""
    """A digest of texts that no prompt shows: in one split, documents are copies only if it is the
    same."""

    @cached_property
    def marks(self) -> frozenset[str]:
        """All by which two documents count as one: the source and the keys."""
        return self.keys | {normalise(self.source)}


def refuse_unused(options: TaskOptions, task: str, used: Collection[str]) -> None:
    """Refuse what a task was told and would not heed, so that no flag is silently lost.

    Raises:
        SweepAborted: an option outside used is set; names each with its value.
    """
    used = {*used, *USED_BY_ALL}
    unused = {
        f.name: getattr(options, f.name)
        for f in fields(options)
        if f.name not in used and getattr(options, f.name) != f.default
    }
    if unused:
        flags = {f.name: get_flag(f.name) for f in fields(options)}
        given = ", ".join(f"{flags[name]} {value!r}" for name, value in unused.items())
        taken = ", ".join(flag for name, flag in flags.items() if name in used) or "none"
        left_out = ", ".join(flags[name] for name in unused)
        raise SweepAborted(
            f"the task {task} has no use for {given}",
            f"leave out {left_out}; of these options {task} takes {taken}",
        )


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
    """Drop the documents that also stand in another split, and count them by split.

    A document shared with two splits counts for each, so the counts equal the overlaps.
    """
    kept = list(documents)
    for other, other_documents in others.items():
        marks = {mark for d in other_documents for mark in d.marks}
        counts[f"{split} also in {other}"] = sum(not marks.isdisjoint(d.marks) for d in documents)
        kept = [d for d in kept if marks.isdisjoint(d.marks)]
    return kept


def drop_duplicates(
    documents: Sequence[Document], split: str, counts: dict[str, int]
) -> list[Document]:
    """Keep the first of the documents that count as one, and count the others."""
    kept: list[Document] = []
    seen: set[tuple[str, bytes]] = set()
    for document in documents:
        marks = {(mark, document.unused) for mark in document.marks}
        if seen.isdisjoint(marks):
            kept.append(document)
            seen |= marks
    counts[f"{split} duplicates"] = len(documents) - len(kept)
    return kept


def select_rung_rows(rows: Sequence[Row], settings: TrainingSettings, step: int) -> list[Row]:
    """The validation rows that a report at this step scores."""
    is_last = step >= settings.max_steps or settings.low_rung_eval_rows is None
    num_rows = settings.eval_rows if is_last else settings.low_rung_eval_rows
    return select_fixed_slice(rows, min(num_rows or settings.eval_rows, settings.eval_rows))


def select_fixed_slice(rows: Sequence[Row], num_rows: int) -> list[Row]:
    """The first num_rows rows of a fixed order, the same for every seed.

    Files may be sorted, by label or length, so the order is that of a digest of each row. A larger
    slice holds every smaller one.
    """
    return sorted(rows, key=lambda row: digest_text(f"{row.id}\n{row.prompt}"))[:num_rows]


def digest_text(text: str) -> str:
    """SHA-256 in hexadecimal: by its order no file's order and no seed moves a row."""
    return hashlib.sha256(text.encode()).hexdigest()


def normalise(text: str) -> str:
    """The text with every run of white space as one space: the form in which texts are compared."""
    return " ".join(text.split())
