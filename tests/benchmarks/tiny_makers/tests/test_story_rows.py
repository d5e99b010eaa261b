"""The tiny Turkish videos and Portuguese articles: reproducible, disjoint, told in their texts."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.benchmarks.tiny_makers import portuguese_articles, turkish_videos
from tests.benchmarks.tiny_makers.story_rows import NUM_ROWS, Row, format_jsonl
from trainables.config import TaskOptions
from trainables.data.tasks import TASKS
from trainables.tiny import TURKISH_YOUTUBE_DIR, WIKIPEDIA_PT_DIR

MAX_FOLDER_BYTES = 300_000
BUNDLES = {
    "turkish_youtube": (TURKISH_YOUTUBE_DIR, turkish_videos.make_rows),
    "wikipedia_pt": (WIKIPEDIA_PT_DIR, portuguese_articles.make_rows),
}
FACTS = {
    "turkish_youtube": (turkish_videos.WORDS["city"], turkish_videos.WORDS["visit"]),
    "wikipedia_pt": (portuguese_articles.TOWNS, portuguese_articles.USES),
}
"""The lists whose combinations no two splits share."""
SPLITS = tuple(NUM_ROWS)


@pytest.fixture(params=BUNDLES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def read_committed(folder: Path, split: str) -> list[Row]:
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]


def test_committed_rows_are_what_the_default_seed_gives(name: str) -> None:
    folder, rows = BUNDLES[name]
    for split in SPLITS:
        assert format_jsonl(rows(split)) == (folder / f"{split}.jsonl").read_text("utf-8")
    assert sum(path.stat().st_size for path in folder.iterdir()) < MAX_FOLDER_BYTES


def test_seed_decides_the_rows(name: str) -> None:
    rows: Callable[..., list[Row]] = BUNDLES[name][1]
    assert rows("test", seed=1) == rows("test", seed=1) != rows("test", seed=2)


def test_no_combination_of_facts_is_in_two_splits(name: str) -> None:
    def facts(row: Row) -> tuple[str, ...]:
        found = [[word for word in words if word in row["summary"]] for words in FACTS[name]]
        assert all(found), row
        return tuple(max(words, key=len) for words in found)

    folder = BUNDLES[name][0]
    seen = [{facts(row) for row in read_committed(folder, split)} for split in SPLITS]
    assert sum(map(len, seen)) == len(set.union(*seen)) > 60


def test_every_word_of_a_summary_but_one_and_stands_in_its_text(name: str) -> None:
    for split in SPLITS:
        for row in read_committed(BUNDLES[name][0], split):
            told = set(re.findall(r"\w+", row["text"].casefold()))
            words = set(re.findall(r"\w+", row["summary"].casefold()))
            assert len(words - told) <= 1 and words - told <= {"ve", "e"}, row
            assert row["summary"].count(".") == 1


def test_task_keeps_every_row(name: str) -> None:
    splits = TASKS[name](TaskOptions()).load(str(BUNDLES[name][0]))
    assert {split: splits.counts[split] for split in SPLITS} == NUM_ROWS
    assert len({row.id for s in SPLITS for row in getattr(splits, s)}) == sum(NUM_ROWS.values())
