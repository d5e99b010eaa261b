"""SAMSum: summarise a chat (Gliwa et al. 2019, arXiv 1911.12237)."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from trainables.config import Metric, TaskOptions
from trainables.errors import SweepAborted
from trainables.tasks.base import (
    Document,
    Row,
    Scoring,
    Splits,
    drop_blank,
    drop_duplicates,
    drop_shared,
)
from trainables.tasks.files import download_split, read_split

REPO = "knkarthick/samsum"
"""Mirror of SAMSum on the Hub; the original, Samsung/samsum, is gone."""
REVISION = "refs/convert/parquet"
"""The branch of Parquet files that the Hub itself makes of every dataset; no script runs."""
COLUMNS = ("id", "dialogue", "summary")
METRIC = Metric(name="rougeLsum", mode="max")
SCORING = Scoring(kind="summarize", language="english")


@dataclass(frozen=True)
class Samsum:
    """Chats with summaries, 14,731 / 818 / 819 rows before cleaning."""

    options: TaskOptions
    name: str = "samsum"
    metric: Metric = METRIC
    dataset: str = f"{REPO}@{REVISION}"
    scoring: Scoring = SCORING
    prompt_template: str = "Summarize the following dialogue.\n\n{dialogue}"

    def load(self, data: str | None) -> Splits:
        """Read and clean the rows; data is a folder with train, validation and test files.

        A dialogue that stands in two splits stays in the later of train, validation, test, so
        that no score is earned by memory.

        Raises:
            SweepAborted: the data cannot be read or lacks a split, a column or rows.
        """
        counts: dict[str, int] = {}
        train, validation, test = (
            _documents(data, split, counts) for split in ("train", "validation", "test")
        )
        others = {"validation": validation, "test": test}
        kept_train = drop_shared(train, "train", others, counts)
        kept_train = drop_duplicates(kept_train, "train", counts)
        kept_validation = drop_shared(validation, "validation", {"test": test}, counts)
        return Splits(
            train=self._rows(kept_train, "train", counts),
            validation=self._rows(kept_validation, "validation", counts),
            test=self._rows(test, "test", counts),
            counts=counts,
        )

    def _rows(
        self, documents: list[Document], split: str, counts: dict[str, int]
    ) -> tuple[Row, ...]:
        counts[split] = len(documents)
        if not documents:
            raise SweepAborted(
                f"the {split} split of {self.name} has no usable row",
                "give every split rows with a dialogue and a summary that no later split holds",
            )
        return tuple(
            Row(id=d.id, prompt=self.prompt_template.format(dialogue=d.source), target=d.target)
            for d in documents
        )


def _documents(data: str | None, split: str, counts: dict[str, int]) -> list[Document]:
    documents = [
        Document(id=str(id_), source=_text(dialogue), target=_text(summary))
        for id_, dialogue, summary in _table(data, split)[list(COLUMNS)].itertuples(index=False)
    ]
    return drop_blank(documents, split, counts)


def _table(data: str | None, split: str) -> pd.DataFrame:
    if data is None:
        return download_split(REPO, REVISION, f"default/{split}/0000.parquet", COLUMNS)
    return read_split(Path(data), split, COLUMNS)


def _text(value: object) -> str:
    """The cell without white space around it; a missing cell is blank."""
    return value.replace("\r\n", "\n").strip() if isinstance(value, str) else ""
