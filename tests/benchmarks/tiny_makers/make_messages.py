"""Short English messages with one of three labels, for the tiny model to classify.

The labels are request, invitation and cancellation; the words are those of the dialogues. A few
messages come twice or with two labels, as in real data, so that a sweep has something to leave out.
"""

import csv
import io
from pathlib import Path
from random import Random

from tests.benchmarks.tiny_makers.grammar import draw_words, fill_sentence
from tests.benchmarks.tiny_makers.words import NAMES

TEMPLATES = {
    "request": (
        "can you lend me your {item} {day}?",
        "I need a {item} {day}, can I borrow yours?",
        "could you bring me my {small} from {place}?",
        "please buy {extra} {day}, I am stuck at {place}.",
        "would you drive me to {place} {day} {time}?",
    ),
    "invitation": (
        "shall we {activity} {day}?",
        "do you want to {activity} with me {day} {time}?",
        "come over {day} {time}, I am cooking {food}.",
        "join us {day}, we meet at {place} {time} to {activity}.",
        "I have two tickets, are you coming with me to {place} {day}?",
    ),
    "cancellation": (
        "I cannot {activity} {day} because of {reason}.",
        "sorry, {day} does not work, I have {reason}.",
        "I will not make it to {place} {day}, there is {reason}.",
        "we have to call off {day}, it is {reason} again.",
        "no dinner {day}, sorry, {reason} came up.",
    ),
}
OPENINGS = ("", "", "hi {a}! ", "hello {a}, ", "{a}, ", "hey, it is {b}. ")
NUM_ROWS = 600
NUM_REPEATED = 8
NUM_CONTRADICTED = 4


def write(folder: Path, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "messages.csv").write_text(
        format_csv(("message", "intent"), make_rows(seed)), "utf-8"
    )


def format_csv(columns: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue()


def make_rows(seed: int = 0) -> list[tuple[str, str]]:
    """Messages with their labels; the same seed gives the same rows."""
    rng = Random(f"messages-{seed}")
    return add_blemishes(rng, _draw_messages(rng), tuple(TEMPLATES))


def add_blemishes(
    rng: Random, labels: dict[str, str], names: tuple[str, ...]
) -> list[tuple[str, str]]:
    """The labelled texts, shuffled, with some that come twice and some that have two labels."""
    rows = list(labels.items())
    odd = rng.sample(rows, NUM_REPEATED + NUM_CONTRADICTED)
    rows += odd[:NUM_REPEATED]
    for text, label in odd[NUM_REPEATED:]:
        rows.append((text, rng.choice([name for name in names if name != label])))
    rng.shuffle(rows)
    return rows


def _draw_messages(rng: Random) -> dict[str, str]:
    labels: dict[str, str] = {}
    names = tuple(TEMPLATES)
    while len(labels) < NUM_ROWS:
        label = names[len(labels) % len(names)]
        labels.setdefault(_draw_message(rng, rng.choice(TEMPLATES[label])), label)
    return labels


def _draw_message(rng: Random, template: str) -> str:
    text = rng.choice(OPENINGS) + template
    people = dict(zip("ab", rng.sample(NAMES, 2), strict=True))
    return fill_sentence(rng, text, people | draw_words(rng, [text]))
