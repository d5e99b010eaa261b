"""Turkish YouTube: summarise the speech of a video of up to 25 minutes, in Turkish."""
# ruff: noqa: RUF001 - Turkish has a dotless i

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pandas as pd

from trainables.config import Metric, TaskOptions
from trainables.data.files import cell_text, download_splits, read_tables
from trainables.data.prompts import choose_template
from trainables.data.rows import Document, Scoring, Splits, drop_blank, refuse_unused
from trainables.data.splitting import assemble, divide, document
from trainables.data.stratified import near_key

REPO = "emirunlu26/turkish-youtube-text-summarization"
REVISION = "refs/convert/parquet"
"""The branch of Parquet files that the Hub itself makes of every dataset; no script runs."""
PROMPT_COLUMNS = ("text", "title", "category", "channel")
COLUMNS = (*PROMPT_COLUMNS, "duration", "url", "summary")
MAX_DURATION_S = 25 * 60
PROMPTS = {
    "chat": (
        "Aşağıda bir YouTube videosunun bilgileri ve konuşma metni verilmiştir. "
        "Videonun içeriğini Türkçe olarak özetle.\n\n"
        "Başlık: {title}\nKategori: {category}\nKanal: {channel}\n\nMetin:\n{text}"
    )
}
METRIC = Metric(name="rougeLsum", mode="max")
SCORING = Scoring(kind="summarize", language="turkish")

_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d\d)(?:\.\d+)?")
_ISO = re.compile(r"P(?:0D)?T(?=\d)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:\.\d+)?S)?")


@dataclass(frozen=True)
class TurkishYoutube:
    """Transcripts with summaries, 520 / 65 / 65 rows before cleaning."""

    options: TaskOptions
    name: str = "turkish_youtube"
    metric: Metric = METRIC
    dataset: str = f"{REPO}@{REVISION}"

    def __post_init__(self) -> None:
        refuse_unused(self.options, self.name, ("prompt",))
        _ = self.prompt_template  # a bad one is told before any row is read

    @property
    def prompt_template(self) -> str:
        """User message with {text}, and {title}, {category}, {channel} if it likes.

        Raises:
            SweepAborted: --prompt is neither one of PROMPTS nor such a text.
        """
        return choose_template(self.options.prompt, PROMPTS, PROMPT_COLUMNS, "text")

    def load(self, data: str | None) -> Splits:
        """Read and clean the rows: of a folder with a file a split, of one file, or of the Hub.

        Rows of one file, or of a folder without a train split, are split anew. A video stands in
        one split only: rows with the same address, title or text are one video.

        Raises:
            SweepAborted: the data cannot be read or lacks a split, a column or rows.
        """
        counts: dict[str, int] = {}
        tables = (
            download_splits(REPO, REVISION, COLUMNS)
            if data is None
            else read_tables(Path(data), COLUMNS)
        )
        documents = {split: _documents(table, split, counts) for split, table in tables.items()}
        kept, notes = divide(documents, counts)
        return assemble(self.name, kept, self.prompt_template, SCORING, counts, notes)


def parse_duration_s(value: object) -> int | None:
    """Seconds of "0:09:13", "9:13", "PT9M13S" or a number of seconds; None for anything else."""
    if isinstance(value, time):  # a spreadsheet's cell
        value = value.isoformat()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return int(value) if math.isfinite(value) else None  # a missing number is NaN
    text = cell_text(value) or ""
    if text.isdecimal():
        return int(text)
    match = _CLOCK.fullmatch(text) or _ISO.fullmatch(text)
    if match is None:
        return None
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def _documents(table: pd.DataFrame, split: str, counts: dict[str, int]) -> list[Document]:
    rows = _of_length(table.to_dict("records"), split, counts)
    return drop_blank([_document(row) for row in rows], split, counts)


def _of_length(
    rows: Sequence[Mapping[Hashable, object]], split: str, counts: dict[str, int]
) -> list[Mapping[Hashable, object]]:
    """The rows of videos of MAX_DURATION_S at most; the others are counted."""
    timed = [(row, parse_duration_s(row["duration"])) for row in rows]
    kept = [row for row, length in timed if length is not None and length <= MAX_DURATION_S]
    unreadable = sum(length is None for _, length in timed)
    counts[f"{split} without a readable duration"] = unreadable
    counts[f"{split} over {MAX_DURATION_S // 60} minutes"] = len(rows) - len(kept) - unreadable
    return kept


def _document(row: Mapping[Hashable, object]) -> Document:
    """The row's own id is its place in its split's file, so it says nothing about the video."""
    keys = {
        "video": _video_id(cell_text(row["url"]) or ""),
        "title": near_key(cell_text(row["title"]) or ""),
        "text": near_key(cell_text(row["text"]) or ""),
    }
    marks = [f"{name} {value}" for name, value in keys.items() if value]
    return document(row, source="text", columns=PROMPT_COLUMNS, keys=marks)


def _video_id(url: str) -> str:
    """What watch?v=ID and youtu.be/ID have in common; the address itself if it is neither."""
    try:
        parts = urlsplit(url)
    except ValueError:  # such as an open bracket
        return url
    given = parse_qs(parts.query).get("v", [""])[0]
    is_short = (parts.hostname or "").endswith("youtu.be")
    return given or (parts.path.strip("/") if is_short else url)
