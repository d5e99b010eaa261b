"""The one look at test: which adapters are scored, and what they reach."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sweeps.checks.preflight import Preflight
from sweeps.config import SweepConfig
from sweeps.finals import bertscore, predictions
from sweeps.finals.finalists import Finals
from sweeps.finals.verdict import Verdict
from sweeps.records.events import EventLog, read_events
from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import TrialRecord
from sweeps.records.trials_csv import find_best
from trainables.checkpoint import checkpoint_folder
from trainables.config import Metric
from trainables.metrics.eval_result import EvalResult

Scores = dict[str, dict[str, float]]
"""Metrics by name, by split: validation, validation_base, test, test_base."""


@dataclass(frozen=True, kw_only=True)
class Winner:
    """The run whose adapter goes into best/, and what is tested beside it."""

    run: TrialRecord
    """The best run of the winning configuration: a trial of the search, or a run of the finals."""
    tested: dict[str, Path]
    """Adapters that are scored on test, by run: the kept one, the winner's other seeds, and the
    baseline's."""
    baseline: str | None = None
    """The best start point's run at the full budget, if it is there."""

    @property
    def trial_id(self) -> str:
        """The search's trial that has the winning configuration."""
        return self.run.final_of or self.run.trial_id


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the one look at test gave."""

    winner: Winner
    scores: Scores
    """Of the kept adapter and of the untuned base."""
    runs: Scores = field(default_factory=dict)
    """Metrics on test, by run."""

    @property
    def own_runs(self) -> list[dict[str, float]]:
        """Metrics on test of the winner's runs, the kept one among them."""
        return [scores for run_id, scores in self.runs.items() if run_id != self.winner.baseline]


def find_winner(
    paths: RunPaths,
    records: Sequence[TrialRecord],
    metric: Metric,
    finals: Finals | None,
    verdict: Verdict | None,
) -> Winner | None:
    """The winner of the finals, or, without finals, the best trial of the search; None if no trial
    came to an end.

    Args:
        records: of the search's trials and of the finals' runs.
    """
    if finals is None or verdict is None or verdict.winner is None or verdict.best_run is None:
        best = find_best([record for record in records if record.final_of is None], metric)
        if best is None:
            return None
        return Winner(run=best, tested={best.trial_id: _find_adapter(paths, best)})
    by_id = {record.trial_id: record for record in records}
    best_run = verdict.best_run
    others = [run for run in verdict.winner.completed if run.trial_id != best_run.trial_id]
    own = [best_run, *others]
    baseline = _find_baseline(finals, by_id)
    is_other = baseline is not None and baseline not in own
    return Winner(
        run=best_run,
        tested={run.trial_id: _find_adapter(paths, run) for run in (*own, baseline) if run},
        baseline=baseline.trial_id if baseline and is_other else None,
    )


def score_on_test(
    config: SweepConfig,
    preflight: Preflight,
    paths: RunPaths,
    winner: Winner,
    log: EventLog,
    score: Callable[[Mapping[str, Path]], dict[str, EvalResult]],
) -> Outcome:
    """Scores the winner's adapters, the baseline and the untuned base on test.

    Test is looked at once for each winner: a resumed sweep takes what the log holds.

    Args:
        score: see trainables.final_test.score.
    """
    run_id = winner.run.trial_id
    for event in read_events(paths.events):
        if event["kind"] == "final_scores" and event["trial_id"] == run_id:
            logged: Scores = event.get("runs", {run_id: event["scores"]["test"]})
            if winner.tested.keys() <= logged.keys():
                runs = {tested_id: logged[tested_id] for tested_id in winner.tested}
                return Outcome(winner=winner, scores=event["scores"], runs=runs)
    results = score(winner.tested)
    predictions.save(paths, preflight.splits, config.settings, results)
    metrics = {name: result.metrics for name, result in results.items()}
    runs = {tested_id: metrics.pop(tested_id) for tested_id in winner.tested}
    validation = dict(winner.run.reports[-1].metrics)
    scores = {**metrics, "test": runs[run_id], "validation": validation}
    log.append("final_scores", trial_id=run_id, scores=scores, runs=runs)
    return Outcome(winner=winner, scores=scores, runs=runs)


def add_bertscore(
    config: SweepConfig, preflight: Preflight, paths: RunPaths, log: EventLog, outcome: Outcome
) -> Outcome:
    """The outcome with BERTScore among the scores, if that was asked for and can be had."""
    run_id = outcome.winner.run.trial_id
    scores = bertscore.add_bertscore(
        config,
        paths,
        log,
        run_id,
        outcome.winner.tested[run_id],
        outcome.scores,
        kind=preflight.splits.scoring.kind,
    )
    return replace(outcome, scores=scores)


def _find_baseline(finals: Finals, by_id: Mapping[str, TrialRecord]) -> TrialRecord | None:
    """The best start point's first run at the full budget, a fresh one if there is any."""
    if finals.baseline is None:
        return None
    run_ids = [*(run.trial_id for run in finals.runs if run.of == finals.baseline), finals.baseline]
    return next((by_id[name] for name in run_ids if by_id[name].status == "completed"), None)


def _find_adapter(paths: RunPaths, run: TrialRecord) -> Path:
    """The run's last checkpoint, also in a folder of the sweep that was moved."""
    return checkpoint_folder(paths.trial(run.trial_id), run.num_steps)
