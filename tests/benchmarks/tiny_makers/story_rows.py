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


def make_rows(
    split: str,
    draw: Callable[[Random], Story],
    tell: Callable[[Random, Story, int], Row],
    facts: tuple[str, ...],
    seed: int = 0,
) -> list[Row]:
    """The rows of one split; the same seed gives the same rows.

    Args:
        draw: a story's facts by name.
        tell: the row that tells a story; the number is the row's place.
        facts: names of the facts whose combination decides the split.
    """
    rng = Random(f"{split}-{seed}")
    rows: list[Row] = []
    told: set[tuple[str, ...]] = set()
    while len(rows) < NUM_ROWS[split]:
        story = draw(rng)
        every = tuple(story.values())
        if every not in told and _split_of(*(story[fact] for fact in facts)) == split:
            told.add(every)
            rows.append(tell(rng, story, len(rows)))
    return rows


def write_rows(folder: Path, seed: int, rows: Callable[[str, int], list[Row]]) -> None:
    """Writes the splits as JSON Lines files into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in NUM_ROWS:
        (folder / f"{split}.jsonl").write_text(jsonl(rows(split, seed)), "utf-8")


def jsonl(rows: list[Row]) -> str:
    """The rows as the text of a .jsonl file."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _split_of(*facts: str) -> str:
    return _SPLIT_OF_BUCKET[crc32(" ".join(facts).encode()) % len(_SPLIT_OF_BUCKET)]
