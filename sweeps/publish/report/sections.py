"""The contents of one run's report, in the order of the page."""

from collections.abc import Sequence
from dataclasses import dataclass

from sweeps.finals.verdict_text import write_sentences
from sweeps.publish import tables
from sweeps.publish.report import charts, listings, result
from sweeps.publish.report.answers import Answer, Cell, list_answers, shade
from sweeps.publish.report.charts import Plot
from sweeps.publish.report.facts import RunFacts
from sweeps.publish.report.importance import MIN_TRIALS
from sweeps.publish.report.parallel import plot_parallel
from sweeps.publish.report.timeline import list_gpu_time, list_packs, plot_timeline
from sweeps.publish.tables import Table
from sweeps.records.redact import redact

STATES = {"running": "running", "ended": "ended", "unfinished": "not finished"}


@dataclass(frozen=True, kw_only=True)
class Section:
    """Everything on one run's page, as text and plots."""

    name: str
    state: str
    lines: Sequence[str]
    """What was swept, in short."""
    headline: Sequence[tuple[str, str, str]]
    """Figures: what, value, and what it means."""
    compared: Table | None
    leads: Table | None
    doubts: Sequence[str]
    winner: Sequence[tuple[str, str]]
    curves: Plot | None
    parallel: Plot | None
    importance: Plot | None
    slices: Sequence[Plot]
    sliced_rung: int | None
    finals: Plot | None
    finalists: Table | None
    sentences: Sequence[str]
    scores: Table | None
    label_scores: Table | None
    confusion: Sequence[tuple[str, Sequence[Cell]]]
    labels: Sequence[str]
    answers: Sequence[Answer]
    num_answers: int
    trials: Table
    trial_keys: Sequence[Sequence[object]]
    """What each cell of trials is sorted by."""
    failures: Table | None
    timeline: Plot | None
    gpu_time: Table | None
    packs: Table | None
    cost: Sequence[str]
    rows: Table
    notes: Sequence[str]
    prompt: str
    settings: Table
    versions: Table
    commands: Sequence[tuple[str, str]]
    metric: str
    min_trials: int = MIN_TRIALS

    @property
    def plots(self) -> list[Plot]:
        """All plots of the page."""
        single = (self.curves, self.parallel, self.importance, self.finals, self.timeline)
        return [*(plot for plot in single if plot is not None), *self.slices]


def describe_run(facts: RunFacts) -> Section:
    """The page's contents."""
    outcome, verdict, record = facts.outcome, facts.verdict, facts.record
    by_label = tables.list_label_scores(outcome.scores.get("test", {})) if outcome else None
    trials, keys = listings.list_trials(facts)
    return Section(
        name=facts.name,
        state=STATES[facts.state],
        lines=result.describe_sweep(facts),
        headline=result.write_headline(facts),
        compared=result.compare(facts),
        leads=tables.list_leads(outcome, facts.metric) if outcome else None,
        doubts=outcome.doubts if outcome else (),
        winner=result.describe_winner(facts),
        curves=charts.plot_curves(facts),
        parallel=plot_parallel(facts),
        importance=charts.plot_importance(facts),
        slices=charts.plot_slices(facts),
        sliced_rung=charts.sliced_rung(facts),
        finals=charts.plot_finals(facts, verdict),
        finalists=tables.list_finalists(verdict) if verdict else None,
        sentences=list(map(redact, write_sentences(verdict))) if verdict else (),
        scores=tables.list_scores(outcome, facts.metric) if outcome else None,
        label_scores=by_label,
        confusion=shade(facts.confusion),
        labels=facts.confusion.labels if facts.confusion else (),
        answers=list_answers(facts),
        num_answers=len(facts.answers),
        trials=trials,
        trial_keys=keys,
        failures=listings.list_failures(facts),
        timeline=plot_timeline(facts),
        gpu_time=list_gpu_time(facts),
        packs=list_packs(facts),
        cost=listings.describe_cost(facts),
        rows=listings.list_rows(record),
        notes=list(map(redact, record.get("read", ()))),
        prompt=str(record.get("prompt", "")),
        settings=listings.list_settings(facts),
        versions=listings.list_versions(record),
        commands=listings.list_commands(facts),
        metric=facts.metric.name,
    )
