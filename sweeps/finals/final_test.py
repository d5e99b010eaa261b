"""The one look at test: which adapters are scored, and what they reach."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sweeps.checks.preflight import Preflight
from sweeps.config import SweepConfig
from sweeps.finals import predictions
from sweeps.finals.finalists import Finals
from sweeps.finals.verdict import Verdict
from sweeps.records.events import EventLog, read_events, scores_from_event
from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import TrialRecord
from sweeps.records.trials_csv import find_best
from trainables.checkpoint import checkpoint_folder
from trainables.config import Metric
from trainables.metrics.eval_result import EvalResult

_log = logging.getLogger(__name__)

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
    baselines: Mapping[str, str] = field(default_factory=dict)
    """What needs no training and is among the scores too: what it does, by the end of its scores'
    names; see baselines.py."""
    intervals: Mapping[str, Mapping[str, tuple[float, float] | None]] = field(default_factory=dict)
    """95% intervals of the kept adapter's lead by the metric that ranks, by the same ends of names
    ("base" is the untuned base) and by split; None where rows cannot be resampled."""
    doubts: tuple[str, ...] = ()
    """A sentence for each reason why the winner may be worth nothing."""

    @property
    def untrained(self) -> dict[str, str]:
        """All that the adapter stands beside and that was not trained, as baselines has it."""
        return {"base": "the untuned base", **self.baselines}

    @property
    def baseline_facts(self) -> dict[str, object]:
        """What sweep.json and finals.json say of baselines: scores, intervals of the winner's lead
        over them, and doubts."""
        return {
            "baselines": {
                title: {
                    split: self.scores[f"{split}_{key}"]
                    for split in ("validation", "test")
                    if f"{split}_{key}" in self.scores
                }
                for key, title in self.untrained.items()
            },
            "lead_intervals": {
                self.untrained[key]: dict(by_split) for key, by_split in self.intervals.items()
            },
            "doubts": list(self.doubts),
        }

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
    best = verdict.best_run if verdict else None
    if best is None or verdict is None or verdict.winner is None or finals is None:
        best = find_best([record for record in records if record.final_of is None], metric)
        return None if best is None else Winner(run=best, tested=_find_adapters(paths, [best]))
    others = [run for run in verdict.winner.completed if run.trial_id != best.trial_id]
    # The best start point's first run at the full budget, a fresh one if there is any.
    by_id = {record.trial_id: record for record in records}
    fresh = [run.trial_id for run in finals.runs if run.of == finals.baseline]
    names = [*fresh, finals.baseline] if finals.baseline else []
    baseline = [by_id[name] for name in names if by_id[name].status == "completed"][:1]
    return Winner(
        run=best,
        tested=_find_adapters(paths, [best, *others, *baseline]),
        baseline=next((run.trial_id for run in baseline if run not in (best, *others)), None),
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
            scores = scores_from_event(event["scores"])
            logged = scores_from_event(event.get("runs", {run_id: scores["test"]}))
            if winner.tested.keys() <= logged.keys():
                runs = {tested_id: logged[tested_id] for tested_id in winner.tested}
                return Outcome(winner=winner, scores=scores, runs=runs)
    results = score(winner.tested)
    for name, result in results.items():
        if result.failure is not None:
            _log.warning("%s has no score by it on these rows: %s", name, result.failure)
    predictions.save(paths, preflight.splits, config.settings, results)
    metrics = {name: result.metrics for name, result in results.items()}
    runs = {tested_id: metrics.pop(tested_id) for tested_id in winner.tested}
    validation = dict(winner.run.reports[-1].metrics)
    scores = {**metrics, "test": runs[run_id], "validation": validation}
    log.append("final_scores", trial_id=run_id, scores=scores, runs=runs)
    return Outcome(winner=winner, scores=scores, runs=runs)


def _find_adapters(paths: RunPaths, runs: Sequence[TrialRecord]) -> dict[str, Path]:
    """The runs' last checkpoints, also in a folder of the sweep that was moved."""
    return {r.trial_id: checkpoint_folder(paths.trial(r.trial_id), r.num_steps) for r in runs}
