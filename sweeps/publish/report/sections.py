"""The contents of one run's report, in the order of the page."""

from typing import Any

from sweeps.finals.verdict_text import write_sentences
from sweeps.publish import tables
from sweeps.publish.load_run import SweepRun
from sweeps.publish.report import charts, listings, result
from sweeps.publish.report.answers import list_answers, read_answers, shade
from sweeps.publish.report.importance import MIN_TRIALS
from sweeps.publish.report.parallel import plot_parallel
from sweeps.publish.report.timeline import list_gpu_time, list_packs, plot_timeline
from sweeps.records.redact import redact


def describe_run(sweep: SweepRun) -> dict[str, Any]:
    """The page's contents, by the names that the template has for them."""
    outcome, verdict, record = sweep.outcome, sweep.finals, sweep.record
    answers, confusion = read_answers(sweep)
    by_label = tables.list_label_scores(outcome.scores.get("test", {})) if outcome else None
    trials, keys = listings.list_trials(sweep)
    page: dict[str, Any] = {
        "name": sweep.name,
        "state": sweep.state,
        "lines": result.describe_sweep(sweep),
        "headline": result.write_headline(sweep),
        "compared": result.compare(sweep),
        "leads": tables.list_leads(outcome, sweep.metric) if outcome else None,
        "doubts": outcome.doubts if outcome else (),
        "winner": result.describe_winner(sweep),
        "curves": charts.plot_curves(sweep),
        "parallel": plot_parallel(sweep),
        "importance": charts.plot_importance(sweep),
        "slices": charts.plot_slices(sweep),
        "sliced_rung": charts.sliced_rung(sweep),
        "finals": charts.plot_finals(sweep),
        "finalists": tables.list_finalists(verdict) if verdict else None,
        "sentences": list(map(redact, write_sentences(verdict))) if verdict else (),
        "scores": tables.list_scores(outcome, sweep.metric) if outcome else None,
        "label_scores": by_label,
        "confusion": shade(confusion),
        "labels": confusion.labels if confusion else (),
        "answers": list_answers(answers, sweep.metric.name),
        "num_answers": len(answers),
        "trials": trials,
        "trial_keys": keys,
        "failures": listings.list_failures(sweep),
        "timeline": plot_timeline(sweep),
        "gpu_time": list_gpu_time(sweep),
        "packs": list_packs(sweep),
        "cost": listings.describe_cost(sweep),
        "rows": listings.list_rows(record),
        "notes": sweep.notes,
        "prompt": str(record.get("prompt", "")),
        "settings": listings.list_settings(sweep),
        "versions": listings.list_versions(record),
        "commands": listings.list_commands(sweep),
        "metric": sweep.metric.name,
        "min_trials": MIN_TRIALS,
    }
    single = [page[name] for name in ("curves", "parallel", "importance", "finals", "timeline")]
    return page | {"plots": [*(plot for plot in single if plot), *page["slices"]]}
