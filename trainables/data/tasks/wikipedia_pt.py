"""Portuguese Wikipedia: summarise an article of 500 to 4,000 tokens, in Portuguese."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from trainables.config import Metric, TaskOptions
from trainables.data.files import read_tables
from trainables.data.prompts import choose_template
from trainables.data.rows import Document, Scoring, Splits, drop_blank, refuse_unused
from trainables.data.splitting import assemble, divide, document
from trainables.errors import SweepAborted

COLUMNS = ("text", "summary")
PROMPTS = {"chat": "Resuma o texto a seguir em português, em poucas frases.\n\n{text}"}
METRIC = Metric(name="rougeLsum", mode="max")
SCORING = Scoring(kind="summarize", language="portuguese")
BUILD = "python -m tests.benchmarks.wikipedia_pt_builder --out DIR --endpoint URL --writer MODEL"


@dataclass(frozen=True)
class WikipediaPt:
    """Articles with summaries that a larger model wrote; no public dataset has them."""

    options: TaskOptions
    name: str = "wikipedia_pt"
    metric: Metric = METRIC
    dataset: str = "rows that tests/benchmarks/wikipedia_pt_builder.py made"

    def __post_init__(self) -> None:
        refuse_unused(self.options, self.name, ("prompt",))
        _ = self.prompt_template  # a bad one is told before any row is read

    @property
    def prompt_template(self) -> str:
        """User message with {text}.

        Raises:
            SweepAborted: --prompt is neither one of PROMPTS nor a text with {text} alone.
        """
        return choose_template(self.options.prompt, PROMPTS, ("text",), "text")

    def load(self, data: str | None) -> Splits:
        """Read and clean the rows: of a folder with a file a split, or of one file.

        Rows of one file are split by their content, alike in length.

        Raises:
            SweepAborted: there is no data, or it cannot be read or lacks a split, column or rows.
        """
        if data is None:
            raise SweepAborted(
                "wikipedia_pt has no dataset on the Hub",
                f"pass --data DIR, or a file with text and summary; a checkout has {BUILD}",
            )
        counts: dict[str, int] = {}
        tables = read_tables(Path(data), COLUMNS)
        documents = {split: _documents(table, split, counts) for split, table in tables.items()}
        kept, notes = divide(documents, counts)
        return assemble(self.name, kept, self.prompt_template, SCORING, counts, notes)


def _documents(table: pd.DataFrame, split: str, counts: dict[str, int]) -> list[Document]:
    rows = [document(row, source="text", columns=("text",)) for row in table.to_dict("records")]
    return drop_blank(rows, split, counts)
