"""Build the rows: collect articles, have summaries written, split; a killed build goes on."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from trainables.data.rows import Document
from trainables.data.splitting import split_by_content
from trainables.data.tasks.wikipedia_pt.articles import read_articles
from trainables.data.tasks.wikipedia_pt.row_log import RowLog, read_lines, write_whole
from trainables.data.tasks.wikipedia_pt.selection import (
    CountTokens,
    cut_at_paragraph,
    read_topics,
    topic_of,
)
from trainables.data.tasks.wikipedia_pt.summaries import Summary, summarise
from trainables.data.tasks.wikipedia_pt.writers import Writer
from trainables.errors import SweepAborted

ARTICLES, ROWS, SETTINGS = "articles.jsonl", "rows.jsonl", "build.json"
MAX_FAILED_BATCHES = 3
"""Batches in a row without one answer, after which the build stops."""

Json = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What decides the rows; a build goes on only where all of it is unchanged."""

    source: str
    topics: tuple[str, ...]
    articles_per_topic: int
    tokenizer: str
    min_tokens: int
    max_tokens: int
    writer: str
    max_words: int


def build(
    out: Path,
    selection: Selection,
    count_tokens: CountTokens,
    make_writer: Callable[[], Writer],
    batch_size: int,
) -> Counter[str]:
    """Writes out/train.jsonl, validation.jsonl and test.jsonl; returns what was counted.

    Articles are kept once all are found, and every row as soon as it has its summary: the same
    command goes on where it was. Rows that failed are tried again then.

    Args:
        make_writer: called once the articles are there, and only if a summary is missing.

    Raises:
        SweepAborted: out holds another build, no article fits, or no summary can be had.
    """
    out.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    with RowLog(out / ROWS) as log, Progress(console=Console(stderr=True)) as progress:
        _keep_settings(out / SETTINGS, selection)
        articles = _collected(out / ARTICLES, selection, count_tokens, progress)
        counts["articles"] = len(articles)
        left = [article for article in articles if article["id"] not in log]
        counts["rows written before"] = len(articles) - len(left)
        task = progress.add_task("summaries", total=len(left))
        if left:
            for num_done in _written(log, left, make_writer(), selection, batch_size, counts):
                progress.advance(task, num_done)
        rows = [log[article["id"]] for article in articles if article["id"] in log]
    return counts + _split(out, rows)


def _written(
    log: RowLog,
    articles: Sequence[Json],
    writer: Writer,
    selection: Selection,
    batch_size: int,
    counts: Counter[str],
) -> Iterator[int]:
    """Has the articles summarised and logged, batch by batch; yields each batch's articles."""
    failed_in_a_row = 0
    for begin in range(0, len(articles), batch_size):
        batch = articles[begin : begin + batch_size]
        summaries = summarise(writer, [a["text"] for a in batch], selection.max_words)
        _append(log, batch, summaries, counts)
        yield len(batch)
        failed_in_a_row = 0 if any(s.text for s in summaries) else failed_in_a_row + 1
        _require_answers(failed_in_a_row, selection.writer)


def _keep_settings(path: Path, selection: Selection) -> None:
    wanted = json.loads(json.dumps(asdict(selection)))
    if not path.is_file():
        write_whole(path, json.dumps(wanted, ensure_ascii=False, indent=2) + "\n")
        return
    found = json.loads(path.read_text("utf-8"))
    other = [name for name in wanted if found.get(name) != wanted[name]]
    if other:
        name = other[0]
        raise SweepAborted(
            f"{path.parent} holds a build with {name} {found.get(name)!r}, not {wanted[name]!r}",
            "choose another --out, or give the flags of that build",
        )


def _collected(
    path: Path, selection: Selection, count_tokens: CountTokens, progress: Progress
) -> list[Json]:
    """The articles that a build before this one found, or those that are found now."""
    if not path.is_file():
        total = selection.articles_per_topic * len(selection.topics)
        task = progress.add_task("articles", total=total)
        found = []
        for article in _chosen(selection, count_tokens):
            found.append(article)
            progress.advance(task)
        if not found:
            raise SweepAborted(
                f"no article of {selection.source} fits",
                "check --source and --topics, or lower --min-tokens",
            )
        write_whole(path, "".join(json.dumps(a, ensure_ascii=False) + "\n" for a in found))
    return read_lines(path.read_bytes())


def _chosen(selection: Selection, count_tokens: CountTokens) -> Iterator[Json]:
    """The source's first articles of each topic that are long enough, each text once."""
    topics = read_topics(selection.topics)
    num_of: Counter[str] = Counter()
    seen: set[str] = set()
    for article in read_articles(selection.source):
        topic = topic_of(article, topics)
        if topic is None or num_of[topic] >= selection.articles_per_topic:
            continue
        text = cut_at_paragraph(
            article.text, count_tokens, selection.min_tokens, selection.max_tokens
        )
        digest = hashlib.sha256((text or "").encode()).hexdigest()[:16]
        if text is None or digest in seen:
            continue
        seen.add(digest)
        num_of[topic] += 1
        yield {"id": digest, "title": article.title, "topic": topic, "text": text}
        if all(num_of[topic] >= selection.articles_per_topic for topic in topics):
            return


def _append(
    log: RowLog, articles: Sequence[Json], summaries: Sequence[Summary], counts: Counter[str]
) -> None:
    for article, summary in zip(articles, summaries, strict=True):
        if summary.text is None:
            counts["rows failed"] += 1
            continue
        log.append(article | {"summary": summary.text})
        counts["rows written"] += 1
        counts["summaries asked for twice"] += summary.is_second
        counts["summaries cut at a sentence's end"] += summary.is_cut


def _require_answers(failed_in_a_row: int, writer: str) -> None:
    if failed_in_a_row >= MAX_FAILED_BATCHES:
        raise SweepAborted(
            f"{writer} wrote no summary of {MAX_FAILED_BATCHES} batches in a row",
            "see the warnings above; the same command goes on where this build stopped",
        )


def _split(out: Path, rows: Sequence[Mapping[str, str]]) -> Counter[str]:
    """Writes the three files; the rows are divided alike in length, by their content."""
    by_id = {row["id"]: row for row in rows}
    documents = [Document(id=r["id"], source=r["text"], target=r["summary"]) for r in rows]
    counts: dict[str, int] = {}
    splits = split_by_content(documents, counts)
    if not all(splits.values()):
        raise SweepAborted(
            f"{out / ROWS} has {len(rows)} rows, too few for three splits",
            "collect more articles into another --out; failed rows are tried again by this command",
        )
    for split, kept in splits.items():
        counts[split] = len(kept)
        lines = (json.dumps(by_id[d.id], ensure_ascii=False) + "\n" for d in kept)
        write_whole(out / f"{split}.jsonl", "".join(lines))
    return Counter({name: n for name, n in counts.items() if n})
