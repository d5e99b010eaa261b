"""SAMSum-shaped rows for the tiny model, from this project's own seeded grammar.

A row's split follows from who talks and from the facts of its summary, so that neither a pair of
names nor a set of facts of the validation and test rows occurs in the training rows.
"""

from random import Random

from tests.benchmarks.tiny_makers.favours import FAVOURS
from tests.benchmarks.tiny_makers.grammar import (
    Story,
    draw_lines,
    draw_story,
    draw_summary,
    draw_words,
    speak,
)
from tests.benchmarks.tiny_makers.plans import PLANS
from tests.benchmarks.tiny_makers.story_rows import Row, choose_split
from tests.benchmarks.tiny_makers.words import ASIDES, FAREWELLS, GREETINGS

SCENARIOS = PLANS + FAVOURS
NUM_ROWS = {"train": 1280, "validation": 192, "test": 192}


def make_rows(split: str, seed: int = 0) -> list[Row]:
    """The rows of one split, in SAMSum's columns; the same seed gives the same rows."""
    rng = Random(f"rows-{split}-{seed}")
    dialogues: dict[str, str] = {}
    while len(dialogues) < NUM_ROWS[split]:
        story = draw_story(rng, SCENARIOS)
        if find_split(story) == split:
            dialogues.setdefault(draw_dialogue(rng, story, 0.8), draw_summary(rng, story))
    return [
        {"id": f"tiny-{split}-{number:04d}", "dialogue": dialogue, "summary": summary}
        for number, (dialogue, summary) in enumerate(dialogues.items())
    ]


def find_split(story: Story) -> str | None:
    """The split that may hold the story; None when its names and its facts disagree."""
    pair = " ".join(sorted((story.slots["a"], story.slots["b"])))
    names = dict.fromkeys("abcd", "")
    facts = " ".join(part.gist.format(**story.slots | names) for part in story.parts)
    by_pair, by_facts = choose_split(pair), choose_split(facts)
    return by_pair if by_pair == by_facts else None


def draw_dialogue(rng: Random, story: Story, aside_frac: float = 0.6) -> str:
    """The story's lines with small talk before and after them, often in between as well."""
    greeting, aside, farewell = rng.choice(GREETINGS), rng.choice(ASIDES), rng.choice(FAREWELLS)
    small = (*greeting, *aside, *farewell)
    slots = story.slots | draw_words(rng, small, taken=story.slots.values())
    before, chatter, after = (
        [speak(rng, line, slots) for line in lines] for lines in (greeting, aside, farewell)
    )
    matter = draw_lines(rng, story)
    if rng.random() < aside_frac:
        index = rng.choice((0, len(story.scenario.opening.lines), len(matter)))
        matter[index:index] = chatter
    return "\n".join((*before, *matter, *after))
