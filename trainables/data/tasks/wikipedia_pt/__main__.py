"""python -m trainables.data.tasks.wikipedia_pt build --out DIR --writer MODEL: the rows."""

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from trainables.data.tasks.wikipedia_pt.build import Selection, build
from trainables.data.tasks.wikipedia_pt.selection import TOPICS, CountTokens, read_topics
from trainables.data.tasks.wikipedia_pt.writers import EndpointWriter, ModelWriter, Writer
from trainables.errors import SweepAborted
from trainables.models.hub_files import hub_file

PROG = "python -m trainables.data.tasks.wikipedia_pt"
PROMPT_TOKENS = 256
"""Room of a writer's prompt beside the article."""


@dataclass(frozen=True, kw_only=True)
class Build:
    """Collects articles, has a larger model summarise them, and splits the rows.

    The same command goes on with a build that was stopped, however it was stopped.
    """

    out: Path
    """Folder of the rows: train.jsonl, validation.jsonl and test.jsonl."""
    writer: str
    """The model that writes: a Hub id or folder, or its name at the endpoint."""
    endpoint: str | None = None
    """Address of an OpenAI-compatible server, e.g. http://localhost:8000/v1; None loads writer."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the endpoint's key; one that is not set sends none."""
    source: str = "hub"
    """Where articles come from: hub (wikimedia/wikipedia 20231101.pt), a .xml.bz2 dump, or a .jsonl
    file of {title, text}."""
    topics: tuple[str, ...] = tuple(TOPICS)
    """Topics of the articles: names of ours, or NAME=KEYWORD,KEYWORD,... for your own."""
    articles_per_topic: int = 400
    """Articles of each topic at most, the first of the source."""
    tokenizer: str = "Qwen/Qwen2.5-0.5B-Instruct"
    """Hub id or folder of the model whose tokens measure the articles."""
    min_tokens: int = 500
    """Shorter articles are left out."""
    max_tokens: int = 4000
    """Longer articles are cut at the end of a paragraph."""
    max_words: int = 120
    """Longest summary."""
    batch_size: int = 8
    """Summaries that are written at once."""

    def __post_init__(self) -> None:
        """Raises SweepAborted: tyro would put a ValueError into a frame of its own."""
        for name in ("articles_per_topic", "min_tokens", "max_words", "batch_size"):
            if getattr(self, name) < 1:
                raise _refusal(name, getattr(self, name), "at least 1")
        if self.max_tokens < self.min_tokens:
            raise _refusal("max_tokens", self.max_tokens, f"at least min_tokens {self.min_tokens}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the process's exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] != "build":
        is_help = words[:1] in (["-h"], ["--help"])
        print(
            f"usage: {PROG} build --out DIR --writer MODEL",
            file=sys.stdout if is_help else sys.stderr,
        )
        return 0 if is_help else 2
    try:
        _build(tyro.cli(Build, args=words[1:], prog=f"{PROG} build"))
    except SweepAborted as refused:
        print(refused, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _build(args: Build) -> None:
    read_topics(args.topics)
    selection = Selection(
        source=args.source if args.source == "hub" else str(Path(args.source).absolute()),
        topics=args.topics,
        articles_per_topic=args.articles_per_topic,
        tokenizer=args.tokenizer,
        min_tokens=args.min_tokens,
        max_tokens=args.max_tokens,
        writer=args.writer,
        max_words=args.max_words,
    )
    counts = build(
        args.out, selection, _counter(args.tokenizer), lambda: _writer(args), args.batch_size
    )
    for name, number in counts.items():
        print(f"{name}: {number:,}")
    print(f"next: python -m sweeps.run wikipedia_pt --data {args.out}")


def _refusal(name: str, value: int, rule: str) -> SweepAborted:
    return SweepAborted(f"{name} is {value}; it must be {rule}", f"{PROG} build --help")


def _writer(args: Build) -> Writer:
    if args.endpoint is not None:
        key = os.environ.get(args.api_key_env)
        return EndpointWriter(endpoint=args.endpoint, model=args.writer, api_key=key)
    return ModelWriter.load(args.writer, args.max_tokens + PROMPT_TOKENS)


def _counter(model: str) -> CountTokens:
    """Counts tokens with the model's tokenizer alone: no weights, no torch."""
    from tokenizers import Tokenizer  # half a second, which --help does without

    file = "tokenizer.json"
    try:
        path = Path(model, file) if Path(model).is_dir() else hub_file(model, file)
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as refused:  # tokenizers raises nothing more exact
        raise SweepAborted(
            f"the tokenizer of {model} cannot be loaded: {refused}",
            "let --tokenizer be a Hub id, or a folder with a tokenizer.json",
        ) from refused
    return lambda texts: [
        len(e) for e in tokenizer.encode_batch(list(texts), add_special_tokens=False)
    ]


if __name__ == "__main__":
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    sys.exit(main())
