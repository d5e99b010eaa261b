"""Seeded rows of small stories, in three splits that share no combination of facts."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from zlib import crc32

NUM_ROWS = {"train": 192, "validation": 24, "test": 24}
_SPLIT_OF_BUCKET = ("validation", "test", *["train"] * 6)

Row = dict[str, str]
Story = Mapping[str, str]


def draw_rows(
    split: str,
    draw: Callable[[Random], Story],
    tell: Callable[[Random, Story, str, int], Row],
    facts: tuple[str, ...],
    seed: int = 0,
) -> list[Row]:
    """The rows of one split; the same seed gives the same rows.

    Args:
        draw: a story's facts by name.
        tell: the row that tells a story, by its split and its place there.
        facts: names of the facts whose combination decides the split.
    """
    rng = Random(f"{split}-{seed}")
    rows: list[Row] = []
    drawn: set[tuple[str, ...]] = set()
    while len(rows) < NUM_ROWS[split]:
        story = draw(rng)
        values = tuple(story.values())
        if values not in drawn and choose_split(*(story[fact] for fact in facts)) == split:
            drawn.add(values)
            rows.append(tell(rng, story, split, len(rows)))
    return rows


def write_rows(folder: Path, seed: int, make_rows: Callable[[str, int], list[Row]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split in NUM_ROWS:
        (folder / f"{split}.jsonl").write_text(format_jsonl(make_rows(split, seed)), "utf-8")


def format_jsonl(rows: list[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def choose_split(*facts: str) -> str:
    """The split of all rows with these facts."""
    return _SPLIT_OF_BUCKET[crc32(" ".join(facts).encode()) % len(_SPLIT_OF_BUCKET)]
