"""The contents of one run's report, in the order of the page."""

from collections.abc import Sequence
from dataclasses import dataclass

from sweeps.finals.verdict_text import write_sentences
from sweeps.publish import tables
from sweeps.publish.load_run import SweepRun
from sweeps.publish.report import charts, listings, result
from sweeps.publish.report.answers import Answer, Cell, list_answers, read_answers, shade
from sweeps.publish.report.charts import Plot
from sweeps.publish.report.importance import MIN_TRIALS
from sweeps.publish.report.parallel import plot_parallel
from sweeps.publish.report.timeline import list_gpu_time, list_packs, plot_timeline
from sweeps.publish.tables import Table
from sweeps.records.redact import redact


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


def describe_run(sweep: SweepRun) -> Section:
    """The page's contents."""
    outcome, verdict, record = sweep.outcome, sweep.finals, sweep.record
    answers, confusion = read_answers(sweep)
    by_label = tables.list_label_scores(outcome.scores.get("test", {})) if outcome else None
    trials, keys = listings.list_trials(sweep)
    return Section(
        name=sweep.name,
        state=sweep.state,
        lines=result.describe_sweep(sweep),
        headline=result.write_headline(sweep),
        compared=result.compare(sweep),
        leads=tables.list_leads(outcome, sweep.metric) if outcome else None,
        doubts=outcome.doubts if outcome else (),
        winner=result.describe_winner(sweep),
        curves=charts.plot_curves(sweep),
        parallel=plot_parallel(sweep),
        importance=charts.plot_importance(sweep),
        slices=charts.plot_slices(sweep),
        sliced_rung=charts.sliced_rung(sweep),
        finals=charts.plot_finals(sweep),
        finalists=tables.list_finalists(verdict) if verdict else None,
        sentences=list(map(redact, write_sentences(verdict))) if verdict else (),
        scores=tables.list_scores(outcome, sweep.metric) if outcome else None,
        label_scores=by_label,
        confusion=shade(confusion),
        labels=confusion.labels if confusion else (),
        answers=list_answers(answers, sweep.metric.name),
        num_answers=len(answers),
        trials=trials,
        trial_keys=keys,
        failures=listings.list_failures(sweep),
        timeline=plot_timeline(sweep),
        gpu_time=list_gpu_time(sweep),
        packs=list_packs(sweep),
        cost=listings.describe_cost(sweep),
        rows=listings.list_rows(record),
        notes=sweep.notes,
        prompt=str(record.get("prompt", "")),
        settings=listings.list_settings(sweep),
        versions=listings.list_versions(record),
        commands=listings.list_commands(sweep),
        metric=sweep.metric.name,
    )
