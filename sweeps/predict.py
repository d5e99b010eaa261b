"""python -m sweeps.predict RUN --input FILE --output FILE: a sweep's adapter answers your rows."""

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sweeps.checks.preflight import has_gpu
from sweeps.cli import JsonFlag, Result, parse, run_command
from sweeps.command_line.consoles import SafeConsole
from sweeps.publish.best_folder import ADAPTER_FILES
from sweeps.publish.trained_run import TrainedRun, open_trained_run
from sweeps.records.prediction_file import ADDED, PredictionFile
from sweeps.records.run import read_record
from trainables.config import TaskOptions, require
from trainables.data.questions import Questions, read_questions
from trainables.data.rows import Splits
from trainables.data.tables.read_tables import read_table
from trainables.data.tables.table import Table, to_json_value
from trainables.errors import SweepAborted, make_unreadable_error
from trainables.files import encode_lines
from trainables.metrics.registry import format_score
from trainables.metrics.score_texts import score_given_answers

if TYPE_CHECKING:  # loads torch
    from trainables.metrics.eval_result import EvalResult

PROG = "python -m sweeps.predict"
WINDOW_BATCHES = 8
"""Batches whose rows are sorted by length together and written at once: what a kill may cost."""


@dataclass(frozen=True, kw_only=True)
class PredictArgs:
    """Answers the rows of a file as the sweep's test rows were answered: same prompt, cuts, chat
    template, generation settings and choice of labels. Rows with right answers are scored too.

    The same command goes on after a kill: rows that are written are not answered again.
    """

    run: tyro.conf.Positional[Path]
    """Folder of the sweep, e.g. runs/samsum."""
    input: str
    """File, folder or archive of any type that --data of a sweep takes, with the columns that the
    sweep's prompt names; - reads JSON Lines from standard input."""
    output: str
    """File for the input's columns with prediction and, of labels, probability and probabilities:
    .jsonl, .csv or .parquet; - writes JSON Lines to standard output."""
    trial: str | None = None
    """Id of another trial, or run of the finals, whose adapter is still in checkpoints/, e.g.
    t0003; None is the winner in best/."""
    base: tyro.conf.FlagCreatePairsOff[bool] = False
    """The untuned base answers, without any adapter."""
    model: str | None = None
    """Where the sweep's model is now, as Hub id or folder; None is where it was."""
    batch_size: int | None = None
    """Rows that are answered together; None is the sweep's --eval-batch-size. A larger one is
    faster on a large GPU; it is halved where the memory runs out."""
    sheet: str | None = None
    """Sheet of an .xlsx file; None is every sheet that is called after a split, or the first that
    looks like a table."""
    columns: tuple[str, ...] | None = None
    """Names of the columns of a file whose first row holds none, in their order."""
    encoding: str | None = None
    """Encoding of text files by Python's name, e.g. cp1251; None finds the common ones."""
    skip_rows: int = 0
    """Lines of a CSV file, or rows of a sheet, above the one with the columns' names."""
    json: JsonFlag = False

    def __post_init__(self) -> None:
        is_size = self.batch_size is None or self.batch_size >= 1
        require(is_size, "batch_size", self.batch_size, "at least 1")
        is_one = not (self.base and self.trial)
        require(is_one, "trial", self.trial, "left out with --base, which has no adapter")
        is_file = not (self.json and self.output == "-")
        require(is_file, "output", self.output, "a file with --json, which needs standard output")
        _ = self.reading

    @property
    def reading(self) -> TaskOptions:
        """How the input is read."""
        names = ("sheet", "columns", "encoding", "skip_rows")
        return TaskOptions(**{name: getattr(self, name) for name in names})


def main(argv: Sequence[str] | None = None) -> Result:
    """Checks all that can be checked before torch is loaded, then answers and scores."""
    args = parse(PredictArgs, argv, PROG)
    run = open_trained_run(
        args.run,
        trial=args.trial,
        model=args.model,
        batch_size=args.batch_size,
        is_base=args.base,
    )
    splits = run.splits
    table = _read_input(args)
    asked = read_questions(table, splits)
    about = {
        "run": read_record(run.paths)["sweep_id"],
        "input": hashlib.sha256(encode_lines(asked.records)).hexdigest(),
        "adapter": hashlib.sha256((run.adapter / ADAPTER_FILES[1]).read_bytes()).hexdigest()
        if run.adapter
        else "none: the untuned base",
    }
    output = PredictionFile(
        os.path.expanduser(args.output), about, table.frame, asked.records, splits.scoring.labels
    )
    notes = [*asked.notes, *_note_cuts(asked, len(output.said), run)]
    if not (run.config.tiny or has_gpu(has_ray=False)):
        notes.append("no GPU found: the CPU answers, which takes long")
    for note in notes:
        print(f"note: {note}", file=sys.stderr, flush=True)
    _answer_rows(asked, output, run)
    results = _score_rows(asked, output.said, splits)
    output.finish(results)
    shown = sys.stderr if args.output == "-" else sys.stdout
    for line in _describe_scores(results, read_record(run.paths)):
        print(line, file=shown)
    if args.output != "-":
        print(f"predictions: {args.output}")
    return Result({**results, "predictions": args.output})


def _read_input(args: PredictArgs) -> Table:
    try:
        table = read_table(os.path.expanduser(args.input), args.reading)
    except SweepAborted as refused:  # what training data is called by
        words = (refused.error, refused.fix)
        raise SweepAborted(*(text.replace("--data", "--input") for text in words)) from None
    except OSError as refused:
        raise make_unreadable_error(refused, f"--input {args.input}") from None
    taken = [name for name in ADDED if name in table.columns]
    if taken:
        raise SweepAborted(
            f"{table.source} has a column {taken[0]!r}, which predictions are to be called",
            "rename or remove it",
        )
    return table


def _note_cuts(asked: Questions, num_done: int, run: TrainedRun) -> list[str]:
    """How many of the prompts that are left lose something for their length."""
    rows = [row for row in asked.questions[num_done:] if row is not None]
    limit, num_cut = run.count_cut(rows)
    return [f"cut to {limit} tokens: {num_cut:,} of {len(rows):,} prompts"] if num_cut else []


def _answer_rows(asked: Questions, output: PredictionFile, run: TrainedRun) -> None:
    """Answers and writes the rows that are not written yet, window by window."""
    num_rows, num_done = len(asked.records), len(output.said)
    if num_done == num_rows:
        return
    size = WINDOW_BATCHES * run.settings.eval_batch_size
    windows = [range(i, min(i + size, num_rows)) for i in range(num_done, num_rows, size)]
    rows_of = [
        [replace(row, target="") for i in window if (row := asked.questions[i]) is not None]
        for window in windows
    ]
    results = run.answer(filter(None, rows_of), [run.adapter])
    columns = (TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=SafeConsole(sys.stderr)) as progress:
        bar = progress.add_task("rows", total=num_rows, completed=num_done)
        for window, rows in zip(windows, rows_of, strict=True):
            added = _read_result(*next(results)) if rows else iter(())
            output.append(
                [
                    asked.records[i] | (next(added) if asked.questions[i] else {ADDED[0]: None})
                    for i in window
                ]
            )
            progress.update(bar, completed=window.stop)


def _read_result(result: "EvalResult") -> Iterator[dict[str, object]]:
    """What predictions add to their rows."""
    for text, of_labels in zip_longest(result.answers, result.probabilities):
        added = (text, of_labels[text], of_labels) if of_labels else (text,)
        yield to_json_value(dict(zip(ADDED, added, strict=False)))


def _score_rows(asked: Questions, said: Sequence[str | None], splits: Splits) -> dict[str, object]:
    """Counts, and the scores of the rows whose right answer is known, if there are any."""
    known = [
        (row, text)
        for row, text in zip(asked.questions, said, strict=True)
        if row is not None and row.target and text is not None
    ]
    results: dict[str, object] = {
        "rows": len(said),
        "predicted": sum(text is not None for text in said),
        "scored": len(known),
    }
    if known:
        rows, texts = zip(*known, strict=True)
        scored = score_given_answers(texts, rows, splits.scoring)
        results["scores"] = scored.metrics
        if scored.failure is not None:
            results["failure"] = scored.failure
    return results


def _describe_scores(results: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[str]:
    """The sweep's own metrics on the rows that were scored."""
    scores = results.get("scores")
    if scores is None:
        return
    yield f"scores of {results['scored']:,} of {results['rows']:,} rows:"
    names = list(dict.fromkeys([record["metric"]["name"], *record["metrics"]]))
    shown = [name for name in names if name in scores] or list(scores)
    yield from (f"  {name} {format_score(name, scores[name])}" for name in shown)
    if "failure" in results:
        yield f"  {results['failure']}"


if __name__ == "__main__":
    run_command(main)
