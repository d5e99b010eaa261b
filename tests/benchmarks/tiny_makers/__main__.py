"""python -m tests.benchmarks.tiny_makers NAME: makes bundled rows or a bundled model again.

Without --out it writes into trainables/tiny/, over the files that are committed.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tests.benchmarks.tiny_makers import (
    make_data,
    make_messages,
    make_tweets,
    portuguese_articles,
    turkish_videos,
)
from tests.benchmarks.tiny_makers.story_rows import write_rows
from trainables import tiny

PROG = "python -m tests.benchmarks.tiny_makers"
ROWS: dict[str, tuple[Path, Callable[[Path, int], None]]] = {
    "samsum": (tiny.SAMSUM_DIR, partial(write_rows, make_rows=make_data.make_rows)),
    "messages": (tiny.MESSAGES_DIR, make_messages.write),
    "turkish_tweets": (tiny.TURKISH_TWEETS_DIR, make_tweets.write),
    "turkish_youtube": (
        tiny.TURKISH_YOUTUBE_DIR,
        partial(write_rows, make_rows=turkish_videos.make_rows),
    ),
    "wikipedia_pt": (
        tiny.WIKIPEDIA_PT_DIR,
        partial(write_rows, make_rows=portuguese_articles.make_rows),
    ),
}
"""The committed folder of each set of rows, and what writes them."""
MODELS = ("model", "hybrid")


def main(argv: Sequence[str]) -> None:
    """Makes rows; the models, which load torch, have flags of their own."""
    if argv and argv[0] in MODELS:
        from tests.benchmarks.tiny_makers import make_model

        return make_model.main(argv[1:], f"{PROG} {argv[0]}", argv[0])
    parser = argparse.ArgumentParser(PROG, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=[*ROWS, *MODELS], help="what to make")
    parser.add_argument("--seed", type=int, default=0, help="seed of every draw")
    parser.add_argument("--out", type=Path, help="folder of the files; default: the committed one")
    args = parser.parse_args(argv)
    folder, write = ROWS[args.name]
    write(args.out or folder, args.seed)


if __name__ == "__main__":
    main(sys.argv[1:])
