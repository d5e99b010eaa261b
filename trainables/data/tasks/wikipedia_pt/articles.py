"""Articles from the Hub, a Wikipedia dump or a JSON Lines file, one after the other."""

import bz2
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

from trainables.errors import SweepAborted
from trainables.models.hub_files import hub_file

HUB_REPO = "wikimedia/wikipedia"
HUB_SNAPSHOT = "20231101.pt"
"""The Hub's name of the Portuguese articles as they stood on 1 November 2023."""


@dataclass(frozen=True)
class Article:
    """A title and the text below it, paragraphs apart by newlines."""

    title: str
    text: str
    categories: tuple[str, ...] = ()
    """Known from a dump only."""


def read_articles(source: str) -> Iterator[Article]:
    """The articles of "hub", a .xml or .xml.bz2 dump, or a .jsonl file of {title, text}.

    Raises:
        SweepAborted: the source is none of these, or cannot be read.
    """
    if source == "hub":
        return _from_hub()
    path = Path(source)
    if not path.is_file():
        raise SweepAborted(f"there is no article file {source}", "check --source, or leave it out")
    if path.suffix == ".jsonl":
        return _from_jsonl(path)
    if path.name.endswith((".xml", ".xml.bz2")):
        return _from_dump(path)
    raise SweepAborted(
        f"{source} is of no known type", "let --source be hub, or a .xml.bz2, .xml or .jsonl file"
    )


def _from_hub() -> Iterator[Article]:
    try:
        hub_file(HUB_REPO, "README.md", dataset_revision="main")  # tells within seconds
    except OSError as refused:
        raise SweepAborted(
            f"cannot read {HUB_REPO}: {refused}",
            "check the network, or pass --source a dump or a .jsonl file",
        ) from refused
    from datasets import load_dataset  # seconds to load, and other sources need none

    for row in load_dataset(HUB_REPO, HUB_SNAPSHOT, split="train", streaming=True):
        yield Article(row["title"], row["text"])


def _from_jsonl(path: Path) -> Iterator[Article]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                yield Article(row["title"], row["text"], tuple(row.get("categories", ())))
            except (ValueError, KeyError, TypeError) as refused:
                raise SweepAborted(
                    f"line {number} of {path} is no article: {type(refused).__name__}: {refused}",
                    'let every line be an object with a "title" and a "text"',
                ) from refused


def _from_dump(path: Path) -> Iterator[Article]:
    try:
        from trainables.data.tasks.wikipedia_pt.wikitext import categories_of, plain_text
    except ModuleNotFoundError as missing:  # an optional package
        raise SweepAborted(
            f"a dump needs {missing.name}, which is not installed", f"pip install {missing.name}"
        ) from missing

    with bz2.open(path) if path.suffix == ".bz2" else path.open("rb") as file:
        try:
            for title, wikitext in _pages(file):
                yield Article(title, plain_text(wikitext), categories_of(wikitext))
        except (ElementTree.ParseError, OSError, EOFError) as refused:
            raise SweepAborted(
                f"{path} cannot be read: {refused}", "download it again, and check its checksum"
            ) from refused


def _pages(file: IO[bytes]) -> Iterator[tuple[str, str]]:
    """Title and wikitext of every article; no redirect, talk page or template.

    Pages are dropped from the tree as they are read: a dump is larger than memory.
    """
    events = ElementTree.iterparse(file, events=("start", "end"))
    _, root = next(events)
    for event, page in events:
        if event == "start" or not page.tag.endswith("}page"):
            continue
        is_article = page.findtext("{*}ns") == "0" and page.find("{*}redirect") is None
        wikitext = page.findtext("{*}revision/{*}text")
        if is_article and wikitext:
            yield page.findtext("{*}title") or "", wikitext
        root.clear()
