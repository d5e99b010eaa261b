"""SAMSum: summarise a chat (Gliwa et al. 2019, arXiv 1911.12237)."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from trainables.config import Metric, TaskOptions
from trainables.data.files import download_splits, read_split
from trainables.data.prompts import choose_template
from trainables.data.rows import SPLITS, Document, Scoring, Splits, drop_blank, refuse_unused
from trainables.data.splitting import assemble, document, separate

REPO = "knkarthick/samsum"
"""Mirror of SAMSum on the Hub; the original, Samsung/samsum, is gone."""
REVISION = "refs/convert/parquet"
"""The branch of Parquet files that the Hub itself makes of every dataset; no script runs."""
COLUMNS = ("id", "dialogue", "summary")
PROMPTS = {
    "chat": "Summarize the following dialogue.\n\n{dialogue}",
    "instruction": (
        "### Instruction:\nSummarize the following dialogue.\n\n"
        "### Input:\n{dialogue}\n\n### Response:"
    ),
}
"""Both are the user's message within the model's chat template, in training and evaluation alike:
a Qwen model ends its answer by that template's end of turn, whatever stands before it."""
METRIC = Metric(name="rougeLsum", mode="max")
SCORING = Scoring(kind="summarize", language="english")


@dataclass(frozen=True)
class Samsum:
    """Chats with summaries, 14,731 / 818 / 819 rows before cleaning."""

    options: TaskOptions
    name: str = "samsum"
    metric: Metric = METRIC
    dataset: str = f"{REPO}@{REVISION}"

    def __post_init__(self) -> None:
        refuse_unused(self.options, self.name, ("prompt",))
        _ = self.prompt_template  # a bad one is told before any row is read

    @property
    def prompt_template(self) -> str:
        """User message with {dialogue}.

        Raises:
            SweepAborted: --prompt is neither one of PROMPTS nor a text with {dialogue} alone.
        """
        return choose_template(self.options.prompt, PROMPTS, ("dialogue",), "dialogue")

    def load(self, data: str | None) -> Splits:
        """Read and clean the rows; data is a folder with train, validation and test files.

        Raises:
            SweepAborted: the data cannot be read or lacks a split, a column or rows.
        """
        counts: dict[str, int] = {}
        if data is None:
            tables = download_splits(REPO, REVISION, COLUMNS)
        else:
            tables = {split: read_split(Path(data), split, COLUMNS) for split in SPLITS}
        documents = {split: _documents(table, split, counts) for split, table in tables.items()}
        kept = separate(documents, counts)
        return assemble(self.name, kept, self.prompt_template, SCORING, counts)


def _documents(table: pd.DataFrame, split: str, counts: dict[str, int]) -> list[Document]:
    documents = [
        document(row, source="dialogue", columns=("dialogue",))
        for row in table[list(COLUMNS)].to_dict("records")
    ]
    return drop_blank(documents, split, counts)
