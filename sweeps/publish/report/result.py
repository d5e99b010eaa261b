"""What came out, in short: the winner, its score and gain, and what it had to beat."""

from collections.abc import Sequence

from sweeps.command_line.durations import format_duration
from sweeps.publish.card_facts import describe
from sweeps.publish.load_run import SweepRun
from sweeps.publish.report.charts import find_winning_trial
from sweeps.publish.tables import Table, show
from sweeps.records.trials_csv import count_by_status, find_best, list_shown_params, rank
from trainables.data.rows import SPLITS
from trainables.metrics.registry import format_score


def describe_sweep(sweep: SweepRun) -> list[str]:
    """What was swept, how far, and when."""
    config, record = sweep.config, sweep.record
    better = "higher" if sweep.metric.mode == "max" else "lower"
    base = "NF4" if config.base == "nf4" else "bf16"
    counts = ", ".join(
        f"{n} {s}" for s, n in sorted(count_by_status(sweep.trials, sweep.unended).items())
    )
    lines = [
        f"Task {config.task} on {describe(record.get('dataset'))}",
        f"Base {describe(config.model)} in {base}, engine {config.engine}",
        f"Metric {sweep.metric.name}, {better} is better",
        f"{len(sweep.trials)} of {config.num_trials} trials" + (f": {counts}" if counts else ""),
    ]
    if sweep.began is not None and sweep.last_event_time is not None:
        took = format_duration((sweep.last_event_time - sweep.began).total_seconds())
        lines.append(
            f"Began {sweep.began.strftime('%Y-%m-%d %H:%M UTC')}, last report after {took}"
        )
    return lines


def write_headline(sweep: SweepRun) -> list[tuple[str, str, str]]:
    """The winner's score and gain, or, before the test, the best so far."""
    name, outcome = sweep.metric.name, sweep.outcome
    if outcome is None:
        best = find_best(sweep.trials, sweep.metric)
        if best is not None:
            value = format_score(name, best.get_value(sweep.metric))
            where = f"{best.trial_id}, on validation at the last rung (step {best.num_steps})"
            return [("Best so far", f"{name} {value}", where)]
        ranked = rank(sweep.trials, sweep.metric)
        if not ranked:
            return [("Best so far", "none yet", "no trial has reported")]
        value = format_score(name, ranked[0].get_value(sweep.metric))
        where = f"{ranked[0].trial_id} at step {ranked[0].num_steps} of {sweep.config.rungs[-1]}"
        return [("Leads so far", f"{name} {value}", f"{where}, on validation")]
    split = "test" if "test" in outcome.scores else "validation"
    score = outcome.scores[split].get(name)
    base = outcome.scores.get(f"{split}_base", {}).get(name)
    interval_text = "no interval: the metric is one number of all rows"
    if sweep.score_interval is not None:
        interval_text = show_interval(name, sweep.score_interval, (score,))
    figures = [
        ("Winner", outcome.winner.trial_id, f"adapter of {outcome.winner.run.trial_id} in best/"),
        (f"{name} on {split}", format_score(name, score, (base,)), interval_text),
    ]
    if score is not None and base is not None:
        gain = sweep.metric.sign * (score - base)
        interval = outcome.intervals.get("base", {}).get(split)
        more = f"; {show_interval(name, interval, (gain,))}" if interval else ""
        gain_sign, shown = "+" * (gain >= 0), format_score(name, base, (score,))
        figures.append(
            (
                "Gain over the untuned base",
                f"{gain_sign}{format_score(name, gain, (score,))}",
                f"from {shown}{more}",
            )
        )
    return figures


def compare_winner(sweep: SweepRun) -> Table | None:
    """The winner beside all that it must beat, by the metric that ranks."""
    outcome, name = sweep.outcome, sweep.metric.name
    if outcome is None:
        return None
    scores = {"winner": outcome.own_scores, **outcome.untrained_scores}
    start = outcome.winner.baseline
    if start is not None:
        scores[f"best start point ({start})"] = {"test": outcome.runs[start]}
    models = {
        title: [of.get(split, {}).get(name) for split in SPLITS[1:]] for title, of in scores.items()
    }
    all_values = [value for values in models.values() for value in values]
    rows = [
        [title, *(format_score(name, value, all_values) for value in values)]
        for title, values in models.items()
    ]
    columns = ("model", *SPLITS[1:])
    return Table(f"{name} of the winner and of what it must beat", columns, rows)


def describe_winner(sweep: SweepRun) -> list[tuple[str, str]]:
    """Its hyperparameters; before the end those of the best so far."""
    by_id = {trial.trial_id: trial for trial in sweep.trials}
    best = by_id.get(find_winning_trial(sweep) or "") or find_best(sweep.trials, sweep.metric)
    return [] if best is None else [(k, show(v)) for k, v in list_shown_params(best.params).items()]


def show_interval(name: str, interval: Sequence[float], beside: Sequence[float | None]) -> str:
    """In words, with the digits of the scores beside it."""
    low, high = (format_score(name, end, (*interval, *beside)) for end in interval)
    return f"95% interval {low} to {high}"
