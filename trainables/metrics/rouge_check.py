"""python -m trainables.metrics.rouge_check FILE.csv: ROUGE beside rouge_score, on your own rows.

The answers are the first words of each source. Pairs of ASCII text must score the same to the last
digit; in others rouge_score erases letters, and how many differ is told. The time is that of as
many sets of answers as a pack has adapters.
"""

import csv
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rouge_score.rouge_scorer import RougeScorer

from trainables.config import Language
from trainables.errors import SweepAborted
from trainables.metrics.rouge import ROUGE_TYPES, References
from trainables.metrics.sentences import sentences_of


@dataclass(frozen=True, kw_only=True)
class CheckArgs:
    """What is checked."""

    file: Annotated[Path, tyro.conf.Positional]
    """CSV file with a header."""
    source: str = "dialogue"
    """Column whose first words are the answers."""
    reference: str = "summary"
    """Column of the references."""
    language: Language = "english"
    """Of both columns; rouge_score is compared if it is English."""
    answer_words: int = 40
    """Words of each answer."""
    num_adapters: int = 16
    """Sets of answers that are timed."""


def main() -> None:
    """Prints the comparison; exit code 1 if ASCII pairs differ, 2 if the file cannot be used."""
    args = tyro.cli(CheckArgs, prog="python -m trainables.metrics.rouge_check")
    try:
        answers, references = _read(args)
    except SweepAborted as refused:
        print(refused, file=sys.stderr)
        sys.exit(2)
    print(_time(answers, references, args))
    if args.language == "english":
        text, num_wrong = compare(answers, references)
        print(text)
        sys.exit(1 if num_wrong else 0)


def compare(answers: Sequence[str], references: Sequence[str]) -> tuple[str, int]:
    """A sentence on the pairs that rouge_score scores otherwise, and how many of ASCII do."""
    scorer = RougeScorer(ROUGE_TYPES, use_stemmer=True)
    ours = References(references, "english").rows(answers)
    num_ascii, num_wrong, num_other = 0, 0, 0
    for answer, reference, row in zip(answers, references, ours, strict=True):
        theirs = scorer.score(_lines(reference), _lines(answer))
        differs = any(abs(row[name] - 100 * theirs[name].fmeasure) > 1e-9 for name in ROUGE_TYPES)
        is_ascii = (answer + reference).isascii()
        num_ascii += is_ascii
        num_wrong += differs and is_ascii
        num_other += differs and not is_ascii
    rest = len(ours) - num_ascii
    return (
        f"of {num_ascii} ASCII pairs {num_wrong} differ from rouge_score; "
        f"of {rest} pairs with other characters {num_other} do"
    ), num_wrong


def _time(answers: Sequence[str], references: Sequence[str], args: CheckArgs) -> str:
    begin = time.perf_counter()
    prepared = References(references, args.language)
    for _ in range(args.num_adapters):
        prepared.rows(answers)
    seconds = time.perf_counter() - begin
    return f"{args.num_adapters} x {len(references)} pairs in {seconds:.2f} s"


def _read(args: CheckArgs) -> tuple[list[str], list[str]]:
    try:
        with args.file.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SweepAborted(f"{args.file} cannot be read: {error}", "name a CSV file") from error
    for column in (args.source, args.reference):
        if not rows or rows[0].get(column) is None:
            raise SweepAborted(
                f"{args.file} has no row with a column {column!r}",
                "name the columns with --source and --reference",
            )
    answers = [" ".join((row[args.source] or "").split()[: args.answer_words]) for row in rows]
    return answers, [row[args.reference] or "" for row in rows]


def _lines(text: str) -> str:
    return "\n".join(sentences_of(text, "english"))


if __name__ == "__main__":
    main()
