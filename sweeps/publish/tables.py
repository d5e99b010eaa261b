"""Tables of a sweep's results, as text: the terminal and the model card show the same ones."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean, median

from sweeps.finals.outcome import Outcome
from sweeps.finals.verdict import Verdict
from sweeps.finals.verdict_text import show_score
from sweeps.records.trial_record import TrialRecord
from sweeps.records.trials_csv import PARAMS, list_shown_params, rank
from trainables.config import Metric
from trainables.metrics.classification import Confusion
from trainables.metrics.registry import PER_LABEL, format_score

MAX_TRIALS = 10
DEFAULTS = {"use_rslora": "no", "target_modules": "all"}
"""As tables show them."""
LABEL_SCORES = ("precision", "recall", "f1")
"""What each label has, as metrics/classification.py names them."""


@dataclass(frozen=True)
class Table:
    """Cells are plain text: whoever shows them escapes what a label or a name may hold."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def list_trials(trials: Sequence[TrialRecord], metric: Metric) -> Table:
    """The best trials of the search."""
    ranked = rank(trials, metric)[:MAX_TRIALS]
    values = [trial.get_value(metric) for trial in ranked]
    rows = [
        [
            *(trial.trial_id, trial.status or "unfinished", str(trial.num_steps)),
            format_score(metric.name, value, values),
            *map(show, list_shown_params(trial.params).values()),
        ]
        for trial, value in zip(ranked, values, strict=True)
    ]
    columns = ("trial", "status", "steps", metric.name, *PARAMS)
    return _drop_defaults(Table(f"best {len(rows)} of {len(trials)} trials", columns, rows))


def list_rungs(trials: Sequence[TrialRecord], metric: Metric) -> Table:
    """How the search went: at each rung how many trials were scored, and how well."""
    values: dict[int, list[float]] = {}
    for trial in trials:
        for report in trial.reports:
            if math.isfinite(value := report.metrics[metric.name]):
                values.setdefault(report.step, []).append(value)
    all_values = [value for of_rung in values.values() for value in of_rung]
    rows = [
        [
            *(str(step), str(len(of_rung))),
            *(
                format_score(metric.name, value, all_values)
                for value in (metric.choose_best(of_rung), median(of_rung))
            ),
        ]
        for step, of_rung in sorted(values.items())
    ]
    columns = ("step", "trials scored", f"best {metric.name}", f"median {metric.name}")
    return Table("the search by rung", columns, rows)


def list_finalists(verdict: Verdict) -> Table:
    """The finalists, best first."""
    rows = [
        [
            *(finalist.trial_id, str(len(finalist.completed))),
            *(show_score(verdict, value) for value in (finalist.mean, finalist.deviation)),
            "" if finalist.probability_best is None else f"{finalist.probability_best:.2f}",
            *map(show, list_shown_params(finalist.params).values()),
        ]
        for finalist in verdict.finalists
    ]
    columns = ("finalist", "seeds", f"mean {verdict.metric.name}", "+-", "P(best)", *PARAMS)
    return _drop_defaults(Table("finals: means over seeds, on validation", columns, rows))


def _drop_defaults(table: Table) -> Table:
    """The table without columns that say the default in every row, as most sweeps' do."""
    kept = [
        place
        for place, name in enumerate(table.columns)
        if name not in DEFAULTS or any(row[place] != DEFAULTS[name] for row in table.rows)
    ]
    rows = [[row[place] for place in kept] for row in table.rows]
    return Table(table.title, tuple(table.columns[place] for place in kept), rows)


def list_scores(outcome: Outcome, ranked_by: Metric, adapter: str = "best adapter") -> Table:
    """The best adapter beside the untuned base and, on test, its other seeds and a start point.

    Where a table of their own has the scores of single labels, it has only the one that ranks.
    """
    models = {adapter: outcome.own_scores, **outcome.untrained_scores}
    start = outcome.winner.baseline
    seed_scores = [scores for run_id, scores in outcome.runs.items() if run_id != start]
    if len(seed_scores) > 1:
        # BERTScore is the best adapter's alone.
        names = [name for name in seed_scores[0] if all(name in run for run in seed_scores)]
        means = {name: fmean(run[name] for run in seed_scores) for name in names}
        models[f"mean of its {len(seed_scores)} seeds"] = {"test": means}
    if start is not None:
        models[f"best start point ({start})"] = {"test": outcome.runs[start]}
    has_own_table = list_label_scores(outcome.scores.get("test", {})) is not None
    rows = [
        [split, metric, *(format_score(metric, value, values) for value in values)]
        for split, of_split in outcome.own_scores.items()
        for metric in of_split
        if metric == ranked_by.name or not has_own_table or not metric.startswith(PER_LABEL)
        for values in [[model.get(split, {}).get(metric) for model in models.values()]]
    ]
    return Table("best adapter and untuned base", ["split", "metric", *models], rows)


def list_leads(outcome: Outcome, metric: Metric) -> Table:
    """How sure it is that the adapter is better than what needs no training, by the metric that
    ranks; a row a split and a baseline whose interval is known."""
    rows = []
    for split, of_split in outcome.own_scores.items():
        for title, intervals in outcome.lead_intervals.items():
            interval, tuned = intervals.get(split), of_split.get(metric.name)
            other = outcome.untrained_scores[title].get(split, {}).get(metric.name)
            if interval is None or tuned is None or other is None:
                continue
            lead = metric.sign * (tuned - other)
            shown = [format_score(metric.name, v, (tuned, other)) for v in (lead, *interval)]
            is_sure = "no" if interval[0] <= 0 else "yes"
            rows.append([split, title, shown[0], f"{shown[1]} to {shown[2]}", is_sure])
    columns = ("split", "over", f"lead in {metric.name}", "95% interval", "beyond chance")
    return Table("lead over what needs no training", columns, rows)


def show_value(value: object, digits: int = 8) -> str:
    """A setting as people write it, not as Python does."""
    match value:
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.{digits}g}"
        case list() | tuple():
            return ", ".join(show_value(one, digits) for one in value)
        case _:
            return str(value)


show = partial(show_value, digits=4)
"""A setting for tables, which have less room."""


def list_label_scores(test: Mapping[str, float]) -> Table | None:
    """Each label's scores on test; None of texts."""
    first = f"{LABEL_SCORES[0]}_"
    labels = [name.removeprefix(first) for name in test if name.startswith(first)]
    rows = [
        [
            label,
            *(format_score(name, test[name]) for name in (f"{s}_{label}" for s in LABEL_SCORES)),
        ]
        for label in labels
    ]
    return Table("best adapter on test, by label", ("label", *LABEL_SCORES), rows) if rows else None


def list_confusion(confusion: Confusion) -> Table:
    """Which labels are taken for which on test: targets in rows, predictions in columns."""
    pairs = zip(confusion.labels, confusion.counts, strict=True)
    rows = [[label, *map(str, counts)] for label, counts in pairs]
    title = "best adapter on test: what was taken for what"
    return Table(title, ("target", *confusion.labels), rows)
