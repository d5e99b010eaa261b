"""Who won the finals and how sure that is: finals.json, and finals.csv with a row a run."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np

from sweeps.config import SweepConfig
from sweeps.finals import bootstrap
from sweeps.finals.finalists import Finals, find_last_finals
from sweeps.finals.run_metrics import make_run_metric
from sweeps.records import trials_csv
from sweeps.records.events import find_since_search
from sweeps.records.paths import RunPaths, abort_if_unwritable
from sweeps.records.run import Run
from sweeps.records.schemas import FinalsFile
from sweeps.records.trial_record import TrialRecord
from trainables.checkpoint import get_checkpoint_folder
from trainables.checkpoint_storage import fetch_checkpoint
from trainables.config import Hyperparameters, Metric
from trainables.data.rows import Scoring
from trainables.files import parse_json, write_json
from trainables.metrics.eval_result import SavedAnswers, read_answers

BASELINE_RESAMPLES = 2_000


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """One configuration in the finals."""

    trial_id: str
    """The search's trial."""
    params: Hyperparameters
    metric: Metric
    runs: tuple[TrialRecord, ...]
    """With fresh seeds, in their order; those that failed say why, and their configuration goes on
    without them. The search's own run is none of them."""
    probability_best: float | None = None
    """Share of the resamples in which it has the best mean; None where it cannot be told."""

    @property
    def completed(self) -> list[TrialRecord]:
        """The runs that count: those that were trained to the full budget."""
        return [run for run in self.runs if run.status == "completed" and run.reports]

    @property
    def values(self) -> list[float]:
        """The metric on validation at the last rung, of the runs that count."""
        return [run.reports[-1].metrics[self.metric.name] for run in self.completed]

    @property
    def mean(self) -> float | None:
        """Mean of the values; None if there are none."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the seeds (n - 1); None of fewer than two runs."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The finals' result, on validation."""

    metric: Metric
    finalists: tuple[Finalist, ...]
    """The best mean first; those without a run that counts come last."""
    lead: float | None = None
    """How much better the winner's mean is than the runner-up's."""
    interval: tuple[float, float] | None = None
    """95% bootstrap interval of the lead."""
    num_rows: int = 0
    """Validation rows that were resampled."""
    notes: tuple[str, ...] = ()
    """What was not as planned."""

    @property
    def winner(self) -> Finalist | None:
        """The best mean; None if no run of the finals reached the end."""
        return self.finalists[0] if self.finalists and self.finalists[0].completed else None

    @property
    def best_run(self) -> TrialRecord | None:
        """The best of the winner's runs on validation; its adapter is the one to keep."""
        if self.winner is None:
            return None
        best_value = self.metric.choose_best(self.winner.values)
        return self.winner.completed[self.winner.values.index(best_value)]


def decide_winner(
    config: SweepConfig,
    paths: RunPaths,
    finals: Finals,
    records: Sequence[TrialRecord],
    metric: Metric,
    scoring: Scoring,
) -> Verdict:
    """Names the winner by the mean over seeds; resampled rows and seeds tell how sure it is."""
    by_id = {record.trial_id: record for record in records}
    finalists = [
        Finalist(
            trial_id=trial_id,
            params=by_id[trial_id].params,
            metric=metric,
            runs=tuple(by_id[run.trial_id] for run in finals.runs if run.of == trial_id),
        )
        for trial_id in finals.finalists
    ]
    finalists.sort(key=lambda one: (one.mean is None, -metric.sign * (one.mean or 0.0)))
    notes = [
        f"{run.trial_id} ({finalist.trial_id} with seed {run.seed}) is missing: "
        f"{run.status or 'running'}, {run.reason or 'no reason given'}"
        for finalist in finalists
        for run in finalist.runs
        if run.status != "completed"
    ]
    comparison, num_rows = None, 0
    try:
        comparison, num_rows = _resample_finalists(config, paths, finalists, metric, scoring)
    except (OSError, ValueError) as missing:
        notes.append(f"no interval: {missing}")
    means = [finalist.mean for finalist in finalists if finalist.mean is not None]
    likely = [
        replace(finalist, probability_best=probability)  # those that count come first
        for finalist, probability in zip_longest(
            finalists, comparison.probabilities if comparison else ()
        )
    ]
    return Verdict(
        metric=metric,
        finalists=tuple(likely),
        lead=abs(means[0] - means[1]) if len(means) > 1 else None,
        interval=comparison.interval if comparison else None,
        num_rows=num_rows,
        notes=tuple(notes),
    )


def write(verdict: Verdict, paths: RunPaths, more: Mapping[str, object] | None = None) -> None:
    """Writes finals.json, with more facts in it, and finals.csv atomically.

    Raises:
        SweepAborted: the disk is full or gone.
    """
    metric, runs = verdict.metric, [run for finalist in verdict.finalists for run in finalist.runs]
    origins = {run.trial_id: {"final_of": run.final_of, "seed": run.seed} for run in runs}
    trials_csv.write_csv(runs, metric, paths.finals_csv, origins)
    content = {
        **summarize(verdict),
        "metric": asdict(metric),
        "finalists": [
            {
                "trial_id": finalist.trial_id,
                "params": asdict(finalist.params),
                "runs": [
                    {
                        "trial_id": run.trial_id,
                        "seed": run.seed,
                        "status": run.status or "unfinished",
                        "reason": run.reason,
                        "value": run.get_value(metric) if run.status == "completed" else None,
                    }
                    for run in finalist.runs
                ],
                "probability_best": finalist.probability_best,
                "mean": finalist.mean,
                "deviation": finalist.deviation,
            }
            for finalist in verdict.finalists
        ],
        "num_rows": verdict.num_rows,
        "notes": verdict.notes,
        "num_resamples": bootstrap.NUM_RESAMPLES,
        **(more or {}),
    }
    with abort_if_unwritable(paths.finals_json):
        write_json(paths.finals_json, content)


def read(run: Run) -> Verdict | None:
    """What finals.json says; None where it is not there, or of finals that no longer count."""
    if find_since_search(run.events, "finals_started") is None:
        return None
    finals = find_last_finals(run.events)
    ids = {one.trial_id for one in finals.runs if one.of in finals.finalists} if finals else set()
    by_id = {record.trial_id: record for record in (*run.trials, *run.final_runs)}
    try:
        content = parse_json(run.paths.finals_json.read_text(encoding="utf-8"))
        FinalsFile.model_validate(content)
        finalists = tuple(
            Finalist(
                trial_id=one["trial_id"],
                params=by_id[one["trial_id"]].params,
                metric=run.metric,
                runs=tuple(by_id[final["trial_id"]] for final in one["runs"]),
                probability_best=one["probability_best"],
            )
            for one in content["finalists"]
        )
        if {final.trial_id for finalist in finalists for final in finalist.runs} != ids:
            return None
        return Verdict(
            metric=run.metric,
            finalists=finalists,
            lead=content["lead"],
            interval=tuple(content["interval"]) if content["interval"] else None,
            num_rows=content["num_rows"],
            notes=tuple(content["notes"]),
        )
    except (OSError, ValueError, KeyError):
        return None


def summarize(verdict: Verdict) -> dict[str, object]:
    """What sweep.json says of the finals."""
    winner, best_run = verdict.winner, verdict.best_run
    return {
        "winner": winner.trial_id if winner else None,
        "adapter": best_run.trial_id if best_run else None,
        "mean": winner.mean if winner else None,
        "deviation": winner.deviation if winner else None,
        "probability_best": winner.probability_best if winner else None,
        "lead": verdict.lead,
        "interval": verdict.interval,
    }


def make_columns(verdict: Verdict | None) -> dict[str, dict[str, object]]:
    """What trials.csv says of each finalist beyond its own search run."""
    return {
        finalist.trial_id: {
            "final_runs": len(finalist.completed),
            "final_mean": finalist.mean,
            "final_deviation": finalist.deviation,
            "probability_best": finalist.probability_best,
        }
        for finalist in (verdict.finalists if verdict else ())
    }


def resample_lead(
    winner: SavedAnswers, baseline: SavedAnswers, metric: Metric, scoring: Scoring, seed: int
) -> tuple[float, float] | None:
    """95% interval of how much better one adapter is than what was said without training.

    None where they were scored on different rows, or where a score of all rows or of a resample
    cannot be told or is no finite number.
    """
    if winner.ids != baseline.ids:
        return None
    try:
        runs = [[make_run_metric(answers, metric, scoring)] for answers in (winner, baseline)]
    except ValueError:
        return None
    all_rows = np.ones((1, len(winner.ids)))
    if not all(np.isfinite(run(all_rows)).all() for (run,) in runs):
        return None
    comparison = bootstrap.compare(
        runs, metric.mode, len(winner.ids), seed=seed, num_resamples=BASELINE_RESAMPLES
    )
    assert comparison.interval is not None  # there are two
    low, high = comparison.interval
    return (low, high) if comparison.best == 0 else (-high, -low)


def find_score_interval(
    answers: Path, metric: Metric, scoring: Scoring, seed: int
) -> tuple[float, float] | None:
    """95% interval over rows of one adapter's score; None where its answers were not kept, or the
    metric is a number of all rows.
    """
    try:
        saved = read_answers(answers)
        run = make_run_metric(saved, metric, scoring)
    except (OSError, ValueError):
        return None
    return bootstrap.resample_score(run, len(saved.ids), seed=seed) if saved.ids else None


def _resample_finalists(
    config: SweepConfig,
    paths: RunPaths,
    finalists: Sequence[Finalist],
    metric: Metric,
    scoring: Scoring,
) -> tuple[bootstrap.Comparison | None, int]:
    """What resampling tells of the finalists with a run that counts, and of how many rows."""
    max_steps = config.max_steps
    answers = [
        [
            read_answers(fetch_checkpoint(config.storage, folder))
            for run in finalist.completed
            for folder in [get_checkpoint_folder(paths.get_trial_folder(run.trial_id), max_steps)]
        ]
        for finalist in finalists
        if finalist.completed
    ]
    if not answers:
        return None, 0
    row_ids = {run.ids for runs in answers for run in runs}
    if len(row_ids) != 1:
        raise ValueError("the runs were scored on different rows")
    num_rows = len(row_ids.pop())
    run_metrics = [[make_run_metric(run, metric, scoring) for run in runs] for runs in answers]
    return bootstrap.compare(run_metrics, metric.mode, num_rows, seed=config.seed), num_rows
