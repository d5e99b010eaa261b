"""The report as one HTML file: the template, its style and script, and Vega inside."""

import base64
import functools
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import resources
from typing import Any

import vl_convert

from sweeps.finals.verdict_text import write_sentences
from sweeps.publish import tables
from sweeps.publish.load_run import SweepRun
from sweeps.publish.report import charts, listings, result
from sweeps.publish.report.answers import list_answers, read_answers, shade
from sweeps.publish.report.comparison import compare_runs
from sweeps.publish.report.importance import MIN_TRIALS
from sweeps.publish.report.parallel import plot_parallel
from sweeps.publish.report.timeline import list_gpu_time, list_packs, plot_timeline
from sweeps.publish.templates import load_template
from sweeps.records.redact import redact
from trainables.files import to_strict_json

REFRESH_S = 10
"""How often the page of a sweep that runs loads itself again."""

STALE_S = 900
"""A page of that age is of a sweep that has died, with nobody left to write that: it rests."""


def render(runs: Sequence[SweepRun]) -> str:
    """The page of one run, or of several that are compared.

    Whatever comes from data, labels, models or logs is text in it: the template escapes it, and the
    page's policy runs no script but its own two and loads nothing.
    """
    script = _read_text("report.js")
    is_running = len(runs) == 1 and runs[0].state == "running"
    page = _describe_run(runs[0]) if len(runs) == 1 else compare_runs(runs)
    template = load_template("report/report.html.j2", is_html=True)
    return template.render(
        page=page,
        is_comparison=len(runs) > 1,
        style=_read_text("report.css"),
        scripts=[_bundle_vega(), script],
        hashes=[_hash_script(_bundle_vega()), _hash_script(script)],
        specs=to_strict_json({plot.key: plot.spec for plot in page["plots"]}),
        refresh_s=REFRESH_S if is_running else 0,
        stale_s=STALE_S,
        written=datetime.now(UTC),
    )


def _describe_run(sweep: SweepRun) -> dict[str, Any]:
    """The contents of one run's page, in order, by the names that the template has for them."""
    outcome, verdict, record = sweep.outcome, sweep.finals, sweep.record
    answers, confusion = read_answers(sweep)
    by_label = tables.list_label_scores(outcome.scores.get("test", {})) if outcome else None
    trials, keys = listings.list_trials(sweep)
    page: dict[str, Any] = {
        "name": sweep.name,
        "state": sweep.state,
        "lines": result.describe_sweep(sweep),
        "headline": result.write_headline(sweep),
        "compared": result.compare_winner(sweep),
        "leads": tables.list_leads(outcome, sweep.metric) if outcome else None,
        "doubts": outcome.doubts if outcome else (),
        "winner": result.describe_winner(sweep),
        "curves": charts.plot_curves(sweep),
        "parallel": plot_parallel(sweep),
        "importance": charts.plot_importance(sweep),
        "slices": charts.plot_slices(sweep),
        "sliced_rung": charts.find_sliced_rung(sweep),
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


@functools.cache
def _bundle_vega() -> str:
    """Vega, Vega-Lite and vega-embed as one script; it takes a second to make."""
    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    assert "</script" not in script.lower() and "<!--" not in script  # it would end there
    return script


@functools.cache
def _read_text(name: str) -> str:
    return (resources.files("sweeps.publish.report") / name).read_text(encoding="utf-8")


def _hash_script(script: str) -> str:
    """As a Content-Security-Policy names a script."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
