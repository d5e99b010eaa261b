"""Short Turkish messages about daily life with a sentiment, for the tiny model to classify.

The columns are those of the task turkish_tweets: Tweets, and Duygu with 0 neutral, 1 negative and
2 positive. Every sentence is of this project's own making; nobody has said any of them.
"""
# ruff: noqa: RUF001 - Turkish has a dotless i

from pathlib import Path
from random import Random

from tests.benchmarks.tiny_makers.make_messages import add_blemishes, format_csv

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


def write(folder: Path, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tweets.csv").write_text(format_csv(("Tweets", "Duygu"), make_rows(seed)), "utf-8")


def make_rows(seed: int = 0) -> list[tuple[str, str]]:
    """Tweets with their sentiments; the same seed gives the same rows."""
    rng = Random(f"tweets-{seed}")
    labels: dict[str, str] = {}
    for label, share in SHARES.items():
        wanted = len(labels) + share
        while len(labels) < wanted:
            labels.setdefault(_draw_tweet(rng, label), label)
    return add_blemishes(rng, labels, tuple(SHARES))


def _draw_tweet(rng: Random, label: str) -> str:
    slots = {kind: rng.choice(words) for kind, words in WORDS.items()}
    return (rng.choice(HEADS) + rng.choice(TEMPLATES[label])).format(**slots)
