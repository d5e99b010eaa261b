"""SAMSum-shaped rows for the tiny model, from this project's own seeded grammar.

A row's split follows from who talks and from the facts of its summary, so that neither a pair of
names nor a set of facts of the validation and test rows occurs in the training rows.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from zlib import crc32

from tests.benchmarks.tiny_makers.favours import FAVOURS
from tests.benchmarks.tiny_makers.grammar import (
    Story,
    draw_lines,
    draw_story,
    draw_summary,
    draw_words,
    spoken,
)
from tests.benchmarks.tiny_makers.plans import PLANS
from tests.benchmarks.tiny_makers.words import ASIDES, FAREWELLS, GREETINGS

SCENARIOS = PLANS + FAVOURS
NUM_ROWS = {"train": 1280, "validation": 192, "test": 192}
_SPLIT_OF_BUCKET = ("validation", "test", *["train"] * 6)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One example, in SAMSum's columns."""

    id: str
    dialogue: str
    summary: str


def write(folder: Path, seed: int) -> None:
    """Writes train.jsonl, validation.jsonl and test.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in NUM_ROWS:
        (folder / f"{split}.jsonl").write_text(jsonl(make_rows(split, seed)), "utf-8")


def jsonl(rows: list[Row]) -> str:
    """The rows as the text of a .jsonl file."""
    return "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)


def make_rows(split: str, seed: int = 0) -> list[Row]:
    """The rows of one split; the same seed gives the same rows."""
    rng = Random(f"rows-{split}-{seed}")
    dialogues: dict[str, str] = {}
    while len(dialogues) < NUM_ROWS[split]:
        story = draw_story(rng, SCENARIOS)
        if split_of(story) == split:
            dialogues.setdefault(draw_dialogue(rng, story, 0.8), draw_summary(rng, story))
    return [
        Row(id=f"tiny-{split}-{number:04d}", dialogue=dialogue, summary=summary)
        for number, (dialogue, summary) in enumerate(dialogues.items())
    ]


def split_of(story: Story) -> str | None:
    """The split that may hold the story; None when its names and its facts disagree."""
    pair = " ".join(sorted((story.slots["a"], story.slots["b"])))
    names = dict.fromkeys("abcd", "")
    facts = " ".join(part.gist.format(**story.slots | names) for part in story.parts)
    by_pair, by_facts = (
        _SPLIT_OF_BUCKET[crc32(text.encode()) % len(_SPLIT_OF_BUCKET)] for text in (pair, facts)
    )
    return by_pair if by_pair == by_facts else None


def draw_dialogue(rng: Random, story: Story, aside_frac: float = 0.6) -> str:
    """The story's lines with small talk before and after them, often in between as well."""
    greeting, aside, farewell = rng.choice(GREETINGS), rng.choice(ASIDES), rng.choice(FAREWELLS)
    small = (*greeting, *aside, *farewell)
    slots = story.slots | draw_words(rng, small, taken=story.slots.values())
    before, chatter, after = (
        [spoken(rng, line, slots) for line in lines] for lines in (greeting, aside, farewell)
    )
    matter = draw_lines(rng, story)
    if rng.random() < aside_frac:
        index = rng.choice((0, len(story.scenario.opening.lines), len(matter)))
        matter[index:index] = chatter
    return "\n".join((*before, *matter, *after))
