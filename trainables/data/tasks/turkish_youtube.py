"""Turkish YouTube: summarise the speech of a video of up to 25 minutes, in Turkish."""
# ruff: noqa: RUF001 - Turkish has a dotless i

import math
import re
from collections.abc import Hashable, Mapping
from datetime import time
from urllib.parse import parse_qs, urlsplit

import pandas as pd

from trainables.config import TaskOptions
from trainables.data.rows import Document, Scoring, drop_blank
from trainables.data.splitting import make_document
from trainables.data.stratified import make_near_key
from trainables.data.tables.hub_tables import REVISION
from trainables.data.tables.table import read_cell
from trainables.data.tasks.summaries import SummaryTask

REPO = "emirunlu26/turkish-youtube-text-summarization"
PROMPT_COLUMNS = ("text", "title", "category", "channel")
MAX_DURATION_S = 25 * 60
PROMPTS = {
    "chat": (
        "Aşağıda bir YouTube videosunun bilgileri ve konuşma metni verilmiştir. "
        "Videonun içeriğini Türkçe olarak özetle.\n\n"
        "Başlık: {title}\nKategori: {category}\nKanal: {channel}\n\nMetin:\n{text}"
    )
}

_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d\d)(?:\.\d+)?")
_ISO = re.compile(r"P(?:0D)?T(?=\d)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:\.\d+)?S)?")


def turkish_youtube(options: TaskOptions) -> SummaryTask:
    """Transcripts with summaries, 520 / 65 / 65 rows before cleaning.

    A video stands in one split only: rows with the same address, title or text are one video.
    """
    return SummaryTask(
        options=options,
        name="turkish_youtube",
        dataset=f"{REPO}@{REVISION}",
        columns=(*PROMPT_COLUMNS, "duration", "url", "summary"),
        prompt_columns=PROMPT_COLUMNS,
        prompts=PROMPTS,
        scoring=Scoring(kind="summarize", language="turkish"),
        read_documents=_read_documents,
    )


def parse_duration_s(value: object) -> int | None:
    """Seconds of "0:09:13", "9:13", "PT9M13S" or a number of seconds; None for anything else."""
    if isinstance(value, time):  # a spreadsheet's cell
        value = value.isoformat()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return int(value) if math.isfinite(value) else None  # a missing number is NaN
    text = read_cell(value) or ""
    if text.isdecimal():
        return int(text)
    match = _CLOCK.fullmatch(text) or _ISO.fullmatch(text)
    if match is None:
        return None
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def _read_documents(table: pd.DataFrame, split: str, counts: dict[str, int]) -> list[Document]:
    """The rows of videos of MAX_DURATION_S at most; the others are counted."""
    rows = table.to_dict("records")
    timed = [(row, parse_duration_s(row["duration"])) for row in rows]
    kept = [row for row, length in timed if length is not None and length <= MAX_DURATION_S]
    unreadable = sum(length is None for _, length in timed)
    counts[f"{split} without a readable duration"] = unreadable
    counts[f"{split} over {MAX_DURATION_S // 60} minutes"] = len(rows) - len(kept) - unreadable
    return drop_blank([_make_document(row) for row in kept], split, counts)


def _make_document(row: Mapping[Hashable, object]) -> Document:
    """The row's own id is its place in its split's file, so it says nothing about the video."""
    keys = {
        "video": _find_video_id(read_cell(row["url"]) or ""),
        "title": make_near_key(read_cell(row["title"]) or ""),
        "text": make_near_key(read_cell(row["text"]) or ""),
    }
    marks = [f"{name} {value}" for name, value in keys.items() if value]
    return make_document(row, source="text", columns=PROMPT_COLUMNS, keys=marks)


def _find_video_id(url: str) -> str:
    """What watch?v=ID and youtu.be/ID have in common; the address itself if it is neither."""
    try:
        parts = urlsplit(url)
    except ValueError:  # such as an open bracket
        return url
    given = parse_qs(parts.query).get("v", [""])[0]
    is_short = (parts.hostname or "").endswith("youtu.be")
    return given or (parts.path.strip("/") if is_short else url)
