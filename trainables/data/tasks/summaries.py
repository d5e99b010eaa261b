"""Datasets of texts with summaries whose columns are known: read, cleaned and split in one way."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from trainables.config import Data, Metric, TaskOptions
from trainables.data.prompts import choose_template
from trainables.data.rows import (
    Document,
    Scoring,
    Splits,
    TableColumns,
    drop_blank,
    refuse_unused,
)
from trainables.data.splitting import assemble_splits, divide_documents, make_document
from trainables.data.tables.read_tables import read_dataset
from trainables.errors import SweepAborted
from trainables.metrics.registry import rank_by

ReadDocuments = Callable[[pd.DataFrame, str, dict[str, int]], list[Document]]
"""Takes a table, its split's name and the counts to add to."""


@dataclass(frozen=True, kw_only=True)
class SummaryTask:
    """A dataset of texts with summaries, and how a model is asked for one."""

    options: TaskOptions
    name: str
    dataset: str
    """REPOSITORY@REVISION of the Hub; else what it is, which --data has to name."""
    columns: tuple[str, ...]
    """What each of its tables has to have, summary among them."""
    prompt_columns: tuple[str, ...]
    """What a prompt may name; the first is the text, which it must name."""
    prompts: Mapping[str, str]
    """Templates by name; the first is the default."""
    scoring: Scoring
    read_documents: ReadDocuments | None = None
    """How a table's rows become documents; None takes all that are not blank."""
    no_data_fix: str = ""
    """What helps who has no data, of a dataset that the Hub has not."""

    def __post_init__(self) -> None:
        refuse_unused(self.options, self.name, ("prompt", "metric", "metric_mode"))
        _ = self.prompt_template, self.metric  # a bad one is told before any row is read

    @property
    def metric(self) -> Metric:
        """rougeLsum, or what the options say."""
        return rank_by(self.options, "rougeLsum")

    @property
    def prompt_template(self) -> str:
        """User message with columns in braces.

        Raises:
            SweepAborted: --prompt is neither one of the prompts nor a text with the first column.
        """
        named, text = self.prompt_columns, self.prompt_columns[0]
        return choose_template(self.options.prompt, self.prompts, named, text)

    def load(self, data: Data) -> Splits:
        """Read and clean the rows: of files by split, or of rows that are split by their content.

        Raises:
            SweepAborted: there is no data, or it cannot be read or lacks a split, column or rows.
        """
        if data is None and self.no_data_fix:
            raise SweepAborted(f"{self.name} has no dataset on the Hub", self.no_data_fix)
        counts: dict[str, int] = {}
        tables = read_dataset(data, self.columns, self.dataset)
        read = self.read_documents or self._read_documents
        documents = {split: read(table, split, counts) for split, table in tables.items()}
        kept, notes = divide_documents(documents, counts)
        template, text = self.prompt_template, self.prompt_columns[0]
        columns = TableColumns(prompt={c: c for c in self.prompt_columns}, target="summary")
        return assemble_splits(
            self.name, kept, template, text, self.scoring, counts, columns, notes
        )

    def _read_documents(
        self, table: pd.DataFrame, split: str, counts: dict[str, int]
    ) -> list[Document]:
        columns = self.prompt_columns
        rows = table.to_dict("records")
        documents = [make_document(row, source=columns[0], columns=columns) for row in rows]
        return drop_blank(documents, split, counts)
