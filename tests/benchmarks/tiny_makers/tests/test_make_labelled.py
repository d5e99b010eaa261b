"""The bundled labelled messages: reproducible, with blemishes to leave out, in three labels."""

from collections import Counter, defaultdict

import pytest

from tests.benchmarks.tiny_makers import make_messages, make_tweets
from trainables.config import TaskOptions
from trainables.data.tasks import TASKS
from trainables.tiny import MESSAGES_DIR, TURKISH_TWEETS_DIR

MESSAGES = TaskOptions(input="message", target="intent", kind="classify")


def test_committed_files_are_what_the_default_seed_gives() -> None:
    messages = make_messages.format_csv(("message", "intent"), make_messages.make_rows())
    assert (MESSAGES_DIR / "messages.csv").read_text("utf-8") == messages
    tweets = make_messages.format_csv(("Tweets", "Duygu"), make_tweets.make_rows())
    assert (TURKISH_TWEETS_DIR / "tweets.csv").read_text("utf-8") == tweets


@pytest.mark.parametrize("made", [make_messages.make_rows, make_tweets.make_rows])
def test_seed_decides_the_rows(made: object) -> None:
    assert callable(made)
    assert made(1) == made(1) != made(2)


@pytest.mark.parametrize(
    ("task", "options", "data"),
    [("table", MESSAGES, MESSAGES_DIR), ("turkish_tweets", TaskOptions(), TURKISH_TWEETS_DIR)],
)
def test_blemishes_are_left_out_and_every_split_has_three_labels(
    task: str, options: TaskOptions, data: object
) -> None:
    splits = TASKS[task](options).load(str(data))
    blemishes = {"table contradictory": 8, "table duplicates": 8}
    assert {n: c for n, c in splits.counts.items() if n.startswith("table") and c} == blemishes
    for rows in (splits.train, splits.validation, splits.test):
        assert len({row.target for row in rows}) == 3


def test_no_opening_gives_a_label_away() -> None:
    for head in ("@arkadas", "#", "ya ", "acaba "):
        found = {label for text, label in make_tweets.make_rows() if text.startswith(head)}
        assert found == {"0", "1", "2"}
    greeted: dict[str, Counter[str]] = defaultdict(Counter)
    for text, label in make_messages.make_rows():
        greeted[text.split()[0]][label] += 1
    assert len(greeted["Hi"]) == len(greeted["Hello"]) == len(greeted["Hey,"]) == 3
