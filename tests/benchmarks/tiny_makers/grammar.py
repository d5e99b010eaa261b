"""The grammar of the tiny data: scenarios are drawn, slots filled, and small talk mixed in.

A line is "speaker: wording | wording"; a is the one who opens, b answers, c and d are absent.
Slots such as {place} or {place2} name a list in words.py, and {place2} never equals {place}.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from tests.benchmarks.tiny_makers.words import NAMES, WORDS

_SLOT = re.compile(r"{([a-z]+)(\d?)}")
_PEOPLE = ("a", "b", "c", "d")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One stretch of a dialogue and the sentences that are left of it."""

    lines: tuple[str, ...]
    gist: str
    """The summary's sentence, which only the finetuning rows contain."""
    told: str
    """How somebody else retells it, which only the pretraining corpus contains."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """An opening and the ways in which it may end."""

    opening: Part
    outcomes: tuple[Part, ...]


@dataclass(frozen=True, kw_only=True)
class Story:
    """One drawn scenario: who, what, and every slot's word."""

    scenario: Scenario
    outcome: Part
    slots: dict[str, str]

    @property
    def parts(self) -> tuple[Part, Part]:
        return self.scenario.opening, self.outcome


def part(*lines: str, gist: str, told: str) -> Part:
    """A Part, so that the scenario tables stay short."""
    return Part(lines=lines, gist=gist, told=told)


def scenario(opening: Part, *outcomes: Part) -> Scenario:
    """A Scenario, so that the scenario tables stay short."""
    return Scenario(opening=opening, outcomes=outcomes)


def draw_story(rng: Random, scenarios: tuple[Scenario, ...]) -> Story:
    """A random scenario with one of its outcomes, four people and all its slots' words."""
    chosen = rng.choice(scenarios)
    outcome = rng.choice(chosen.outcomes)
    texts = [text for p in (chosen.opening, outcome) for text in (*p.lines, p.gist, p.told)]
    people = dict(zip(_PEOPLE, rng.sample(NAMES, len(_PEOPLE)), strict=True))
    return Story(scenario=chosen, outcome=outcome, slots=people | draw_words(rng, texts))


def draw_words(rng: Random, texts: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """A word for each slot that the texts name; no word twice, and none of those taken."""
    used, slots = set(taken), {}
    for kind, number in sorted({match for text in texts for match in _SLOT.findall(text)}):
        if kind in _PEOPLE:
            continue
        word = rng.choice(WORDS[kind])
        while word in used:
            word = rng.choice(WORDS[kind])
        used.add(word)
        slots[kind + number] = word
    return slots


def draw_lines(rng: Random, story: Story) -> list[str]:
    """The story as "Name: text" lines, each in one of its wordings."""
    return [speak(rng, line, story.slots) for p in story.parts for line in p.lines]


def draw_summary(rng: Random, story: Story) -> str:
    """The story's two sentences in the third person."""
    return " ".join(fill_sentence(rng, p.gist, story.slots) for p in story.parts)


def speak(rng: Random, line: str, slots: dict[str, str]) -> str:
    """One line of dialogue: "a: hello | hi" becomes "Ada: Hi"."""
    speaker, wordings = line.split(": ", 1)
    return f"{slots[speaker]}: {fill_sentence(rng, wordings, slots)}"


def fill_sentence(rng: Random, wordings: str, slots: dict[str, str]) -> str:
    """One of the wordings with its slots filled and its first letter upper-case."""
    text = rng.choice(wordings.split(" | ")).format(**slots)
    return text[0].upper() + text[1:]
