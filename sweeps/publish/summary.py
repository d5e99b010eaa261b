"""What the user reads when a sweep has ended."""

import io
from collections.abc import Mapping, Sequence
from statistics import fmean

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sweeps.config import SweepConfig
from sweeps.finals.final_test import Outcome
from sweeps.finals.predictions import CONFUSION_CSV, PREDICTIONS_FILE
from sweeps.finals.verdict import Verdict, summarize
from sweeps.finals.verdict_text import make_table as make_finals_table
from sweeps.finals.verdict_text import write_sentences
from sweeps.records import trials_csv
from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import TrialRecord
from sweeps.search.storage import hide_password
from trainables.config import Metric
from trainables.metrics.classification import Confusion
from trainables.packing.service.ledger import Ledger

NUM_ROWS = 10
MAX_SHOWN_LABELS = 8
PER_CLASS = ("precision", "recall", "f1")
"""Scores of each label, as metrics/classification.py names them."""
LEFT_TO_THE_CARD = (*(f"{name}_" for name in PER_CLASS), "bertscore_precision", "bertscore_recall")
"""How scores begin that the table of scores has no room for."""


def describe(
    config: SweepConfig,
    paths: RunPaths,
    trials: Sequence[TrialRecord],
    metric: Metric,
    outcome: Outcome,
    ledgers: Sequence[Ledger] = (),
    verdict: Verdict | None = None,
    confusion: Confusion | None = None,
) -> str:
    """The best trials, the winner beside the untuned base, and where everything lies."""
    best = next(row for row in trials if row.trial_id == outcome.winner.trial_id)
    params = [f"{name} {value}" for name, value in trials_csv.shown_params(best).items()]
    counts = trials_csv.count_by_status(trials)
    storage = config.study_storage or f"sqlite:///{paths.optuna_db}"
    said = paths.best / PREDICTIONS_FILE
    lines = [
        _rendered(_trials_table(trials, metric)),
        f"{len(trials)} trials: " + ", ".join(f"{n} {s}" for s, n in sorted(counts.items())),
        f"best: {best.trial_id} ({', '.join(params)})",
        *_finals(verdict),
        _rendered(_scores_table(outcome)),
        *(_rendered(table) for table in _label_tables(outcome.scores["test"])),
        *_mistakes(confusion),
        *map(_pack_line, ledgers),
        f"adapter: {paths.best}",
        f"trials:  {paths.trials_csv}",
        *([f"answers: {said}"] if said.is_file() else []),
        *([f"finals:  {paths.finals_json}, {paths.finals_csv.name}"] if verdict else []),
        f"study:   optuna-dashboard {hide_password(storage)}",
        f"publish: python -m sweeps.export {paths.folder} --to hub:USER/NAME",
    ]
    return "\n".join(lines)


def summary_fields(
    outcome: Outcome, verdict: Verdict | None, confusion: Confusion | None
) -> dict[str, object]:
    """The fields of a "summary" event: what the run shows.

    Args:
        confusion: of the winner on test; None for texts.
    """
    values: dict[str, object] = {
        f"{split}/{name}": value
        for split, metrics in outcome.scores.items()
        for name, value in metrics.items()
    }
    values |= {"winner": outcome.winner.trial_id, "adapter": outcome.winner.run.trial_id}
    if verdict is not None:
        facts = summarize(verdict)
        for name in ("mean", "deviation", "probability_best", "lead"):
            if facts[name] is not None:
                values[f"finals/{name}"] = facts[name]
        if verdict.interval is not None:
            values["finals/lead_low"], values["finals/lead_high"] = verdict.interval
    return {
        "values": values,
        "confusion": confusion
        and {"labels": list(confusion.labels), "counts": list(map(list, confusion.counts))},
    }


def without_best(trials: Sequence[TrialRecord]) -> str:
    """What to say when no trial completed: the reasons, most frequent first."""
    reasons: dict[str, int] = {}
    for row in trials:
        if row.status == "failed":
            reasons[row.reason] = reasons.get(row.reason, 0) + 1
    shown = sorted(reasons.items(), key=lambda item: -item[1])[:5]
    return "\n".join(
        ["error: no trial completed", *(f"  {n} failed: {reason}" for reason, n in shown)]
    )


def _pack_line(ledger: Ledger) -> str:
    """E.g. pack on NVIDIA H200: 61 s: train 70%, evaluate 18%; 96% of its tokens were real."""
    total_s = sum(ledger.seconds.values())
    by_share = sorted(ledger.seconds.items(), key=lambda item: -item[1])
    shares = [f"{name} {s / total_s:.0%}" for name, s in by_share if s >= 0.005 * total_s]
    line = f"pack on {ledger.device}: {total_s:.0f} s: {', '.join(shares)}"
    if not ledger.computed_tokens:
        return line
    return f"{line}; {ledger.real_tokens / ledger.computed_tokens:.1%} of its tokens were real"


def _trials_table(trials: Sequence[TrialRecord], metric: Metric) -> Table:
    shown = trials_csv.rank(trials, metric)[:NUM_ROWS]
    table = Table(title=f"best {len(shown)} of {len(trials)} trials")
    for name in ("trial", "status", "steps", metric.name, *trials_csv.PARAMS):
        table.add_column(name)
    for trial in shown:
        params = [
            f"{value:.2e}" if name == "learning_rate" else str(value)
            for name, value in trials_csv.shown_params(trial).items()
        ]
        cells = [trial.trial_id, trial.status or "running", str(trial.num_steps)]
        table.add_row(*cells, f"{trial.value(metric):.2f}", *params)
    return table


def _finals(verdict: Verdict | None) -> list[str]:
    """The finalists, the winner and how sure it is."""
    if verdict is None:
        return []
    rows = make_finals_table(verdict)
    table = Table(title="finals: means over seeds, on validation")
    for name in rows[0]:
        table.add_column(name)
    for row in rows:
        table.add_row(*row.values())
    return [_rendered(table), *write_sentences(verdict)]


def _scores_table(outcome: Outcome) -> Table:
    scores = outcome.scores
    names = [
        name
        for name in scores["test"]
        if name in scores["validation"] and not name.startswith(LEFT_TO_THE_CARD)
    ]
    table = Table(title="best trial and untuned base")
    table.add_column("scored on")
    for name in names:
        table.add_column(name)
    titles = {
        "validation_base": "validation, untuned base",
        "validation": "validation, best trial",
        "test_base": "test, untuned base",
        "test": "test, best trial",
    }
    shown = {title: scores[split] for split, title in titles.items()}
    if len(outcome.own_runs) > 1:
        title = f"test, mean of its {len(outcome.own_runs)} seeds"
        shown[title] = {
            name: fmean(run[name] for run in outcome.own_runs)
            for name in names
            if all(name in run for run in outcome.own_runs)  # BERTScore is the best adapter's alone
        }
    if outcome.winner.baseline is not None:
        title = f"test, best start point ({outcome.winner.baseline})"
        shown[title] = outcome.runs[outcome.winner.baseline]
    for title, metrics in shown.items():
        table.add_row(title, *(f"{metrics[name]:.2f}" if name in metrics else "" for name in names))
    return table


def _label_tables(test: Mapping[str, float]) -> list[Table]:
    """Each label's scores on test, where there are labels."""
    first = f"{PER_CLASS[0]}_"
    labels = [name.removeprefix(first) for name in test if name.startswith(first)]
    if not labels:
        return []
    table = Table(title="best trial on test, by label")
    for name in ("label", *PER_CLASS):
        table.add_column(name)
    for label in labels:
        table.add_row(label, *(f"{test[f'{name}_{label}']:.2f}" for name in PER_CLASS))
    return [table]


def _mistakes(confusion: Confusion | None) -> list[str]:
    """Which labels are taken for which; a large table is in its file only."""
    if confusion is None:
        return []
    if len(confusion.labels) > MAX_SHOWN_LABELS:
        return [f"which of the {len(confusion.labels)} labels is taken for which: {CONFUSION_CSV}"]
    table = Table(title="best trial on test: what was taken for what")
    for name in ("target", *confusion.labels):
        table.add_column(Text(name))
    for label, row in zip(confusion.labels, confusion.counts, strict=True):
        table.add_row(Text(label), *map(str, row))
    return [_rendered(table)]


def _rendered(table: Table) -> str:
    text = io.StringIO()
    Console(file=text, width=110).print(table)
    return text.getvalue().rstrip()
