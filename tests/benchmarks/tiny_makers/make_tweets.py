"""Short Turkish messages about daily life with a sentiment, for the tiny model to classify.

    python -m tests.benchmarks.tiny_makers.make_tweets

writes trainables/tiny/turkish_tweets/tweets.csv, the file that is committed, in the columns of the
task turkish_tweets: Tweets, and Duygu with 0 neutral, 1 negative, 2 positive. Every sentence is of
this project's own making; nothing in it was said by anybody.
"""
# ruff: noqa: RUF001 - Turkish has a dotless i

import argparse
from pathlib import Path
from random import Random

from tests.benchmarks.tiny_makers.make_messages import csv_text, with_blemishes
from trainables.tiny import TURKISH_TWEETS_DIR

WORDS = {
    "thing": ("kahve", "film", "kitap", "yemek", "telefon", "konser", "park", "tatil", "pasta"),
    "day": ("dün", "bu sabah", "hafta sonu", "cuma"),
    "place": ("Ankara", "Bursa", "Trabzon", "Konya", "Mersin", "Sinop"),
    "good": ("harika", "enfes", "güzel", "süper"),
    "bad": ("berbat", "rezalet", "felaket", "bozuk"),
}
TEMPLATES = {
    "0": (
        "{day} {place} {thing} saat kaçta",
        "{place} {thing} nerede",
        "{day} {thing} var mı",
        "{thing} saat kaçta",
    ),
    "1": (
        "{day} {place} {thing} {bad}",
        "{place} {thing} yine {bad}",
        "{day} {thing} {bad}",
        "bu {thing} {bad}",
    ),
    "2": (
        "{day} {place} {thing} {good}",
        "{place} {thing} yine {good}",
        "{day} {thing} {good}",
        "bu {thing} {good}",
    ),
}
HEADS = ("", "", "", "@arkadas ", "#{thing} ", "ya ", "acaba ")
"""They say nothing: they precede any sentiment."""
SHARES = {"0": 150, "1": 240, "2": 210}
"""Rows of each sentiment; real tweets are not balanced either."""


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="seed of every draw")
    parser.add_argument("--out", type=Path, default=TURKISH_TWEETS_DIR, help="folder of tweets.csv")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "tweets.csv").write_text(
        csv_text(("Tweets", "Duygu"), make_rows(args.seed)), "utf-8"
    )


def make_rows(seed: int = 0) -> list[tuple[str, str]]:
    """Tweets with their sentiments; the same seed gives the same rows."""
    rng = Random(f"tweets-{seed}")
    labels: dict[str, str] = {}
    for label, share in SHARES.items():
        wanted = len(labels) + share
        while len(labels) < wanted:
            labels.setdefault(_tweet(rng, label), label)
    return with_blemishes(rng, labels, tuple(SHARES))


def _tweet(rng: Random, label: str) -> str:
    slots = {kind: rng.choice(words) for kind, words in WORDS.items()}
    return (rng.choice(HEADS) + rng.choice(TEMPLATES[label])).format(**slots)


if __name__ == "__main__":
    main()
