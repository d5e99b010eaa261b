"""What the user reads when a sweep has ended."""

import io
import shutil
import sys
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Column
from rich.table import Table as RichTable
from rich.text import Text

from sweeps.config import SweepConfig
from sweeps.finals.outcome import Outcome
from sweeps.finals.predictions import CONFUSION_CSV, LABEL_SCORES_CSV, PREDICTIONS_FILE
from sweeps.finals.verdict import Verdict, summarize
from sweeps.finals.verdict_text import write_sentences
from sweeps.publish import tables
from sweeps.records import trials_csv
from sweeps.records.paths import RunPaths
from sweeps.records.redact import hide_secrets
from sweeps.records.trial_record import TrialRecord
from trainables.config import Metric
from trainables.metrics.classification import MAX_REPORTED_LABELS, Confusion
from trainables.packing.service.ledger import Ledger
from trainables.shell import write_command

MAX_SHOWN_LABELS = 8
MAX_WIDTH = 110
"""Columns of a table, where the terminal has no fewer."""


def describe(
    config: SweepConfig,
    paths: RunPaths,
    trials: Sequence[TrialRecord],
    metric: Metric,
    outcome: Outcome,
    ledgers: Sequence[Ledger] = (),
    verdict: Verdict | None = None,
    confusion: Confusion | None = None,
    about_rows: Sequence[str] = (),
) -> str:
    """The best trials, the winner beside the untuned base, and where everything lies."""
    best = next(row for row in trials if row.trial_id == outcome.winner.trial_id)
    params = [
        f"{name} {tables.show_value(value)}"
        for name, value in trials_csv.list_shown_params(best.params).items()
    ]
    counts = trials_csv.count_by_status(trials)
    storage = config.study_storage or paths.study_url
    answers_file = paths.best / PREDICTIONS_FILE
    by_label = tables.list_label_scores(outcome.scores["test"])
    lines = [
        _render_table(tables.list_trials(trials, metric)),
        f"{len(trials)} trials: " + ", ".join(f"{n} {s}" for s, n in sorted(counts.items())),
        f"best: {best.trial_id} ({', '.join(params)})",
        *(
            [_render_table(tables.list_finalists(verdict)), *write_sentences(verdict)]
            if verdict
            else []
        ),
        _render_table(tables.list_scores(outcome, metric)),
        *([_render_table(by_label)] if by_label else []),
        *([_describe_confusion(confusion)] if confusion else []),
        *about_rows,
        *(f"warning: {doubt}" for doubt in outcome.doubts),
        *map(_describe_pack, ledgers),
        f"adapter: {paths.best}",
        f"trials:  {paths.trials_csv}",
        f"report:  {paths.report}",
        *([f"answers: {answers_file}"] if answers_file.is_file() else []),
        *([f"finals:  {paths.finals_json}, {paths.finals_csv.name}"] if verdict else []),
        f"study:   optuna-dashboard {write_command(hide_secrets(storage))}",
        f"publish: python -m sweeps.export {write_command(paths.folder)} --to hub:USER/NAME",
    ]
    return "\n".join(lines)


def make_summary_fields(
    outcome: Outcome, verdict: Verdict | None, confusion: Confusion | None
) -> dict[str, object]:
    """The fields of a "summary" event: what the run shows."""
    values: dict[str, object] = {
        f"{split}/{name}": value
        for split, metrics in outcome.scores.items()
        for name, value in metrics.items()
    }
    values |= {"winner": outcome.winner.trial_id, "adapter": outcome.winner.run.trial_id}
    if outcome.doubts:
        values["doubts"] = "; ".join(outcome.doubts)
    if verdict is not None:
        facts = summarize(verdict)
        for name in ("mean", "deviation", "probability_best", "lead"):
            if facts[name] is not None:
                values[f"finals/{name}"] = facts[name]
        if verdict.interval is not None:
            values["finals/lead_low"], values["finals/lead_high"] = verdict.interval
    if confusion is not None and len(confusion.labels) > MAX_REPORTED_LABELS:
        confusion = None  # no chart can show it; its file has it
    return {
        "values": values,
        "confusion": confusion
        and {"labels": list(confusion.labels), "counts": list(map(list, confusion.counts))},
    }


def describe_no_best(trials: Sequence[TrialRecord]) -> str:
    """What to say when no trial completed: the reasons, most frequent first."""
    reasons = Counter(row.reason for row in trials if row.status == "failed").most_common(5)
    return "\n".join(
        ["error: no trial completed", *(f"  {n} failed: {reason}" for reason, n in reasons)]
    )


def _describe_confusion(confusion: Confusion) -> str:
    """Which labels are taken for which; a large table is in its file only."""
    if len(confusion.labels) > MAX_SHOWN_LABELS:
        shown = f"which of the {len(confusion.labels)} labels is taken for which: {CONFUSION_CSV}"
        return f"{shown}; the scores of each: {LABEL_SCORES_CSV}"
    return _render_table(tables.list_confusion(confusion))


def _describe_pack(ledger: Ledger) -> str:
    """E.g. pack on NVIDIA H200: 61 s: train 70%, evaluate 18%; 96% of its tokens were real."""
    total_s = sum(ledger.seconds.values())
    by_share = sorted(ledger.seconds.items(), key=lambda item: -item[1])
    shares = [f"{name} {s / total_s:.0%}" for name, s in by_share if s >= 0.005 * total_s]
    line = f"pack on {ledger.device}: {total_s:.0f} s: {', '.join(shares)}"
    if not ledger.computed_tokens:
        return line
    return f"{line}; {ledger.real_tokens / ledger.computed_tokens:.1%} of its tokens were real"


def _render_table(table: tables.Table) -> str:
    shown = RichTable(
        *(Column(Text(name), overflow="fold") for name in table.columns), title=table.title
    )
    for row in table.rows:
        shown.add_row(*map(Text, row))
    encoding = sys.stdout.encoding or "utf-8"  # by which rich chooses the lines of its frames
    text = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
    width = min(MAX_WIDTH, shutil.get_terminal_size((MAX_WIDTH, 0)).columns)
    console = Console(file=text, width=width, force_terminal=False, force_jupyter=False)
    options = console.options.update(width=1000)
    if Measurement.get(console, options, shown).maximum > width:
        shown.box, shown.padding = None, (0, 1, 0, 0)  # the frame's room is for words
    if Measurement.get(console, options, shown).maximum > width:
        for column, name in zip(shown.columns, table.columns, strict=True):
            column.header = Text(name.replace("_", "_\n"))
    console.print(shown)  # to the text, whether this is a terminal or a notebook
    text.seek(0)
    return text.read().rstrip()
