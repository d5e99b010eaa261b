"""The one look at test: which adapters are scored, and what they reach."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sweeps.checks.preflight import Preflight
from sweeps.config import SweepConfig
from sweeps.finals import predictions
from sweeps.finals.finalists import Finals
from sweeps.finals.outcome import Outcome, Winner
from sweeps.finals.verdict import Verdict
from sweeps.records.events import EventLog, find_since_search, parse_scores, read_events
from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import TrialRecord
from sweeps.records.trials_csv import find_best
from trainables.checkpoint import get_checkpoint_folder
from trainables.checkpoint_storage import fetch_checkpoint
from trainables.config import Metric
from trainables.metrics.eval_result import EvalResult

_log = logging.getLogger(__name__)


def find_winner(
    paths: RunPaths,
    records: Sequence[TrialRecord],
    metric: Metric,
    finals: Finals | None,
    verdict: Verdict | None,
    storage: str | None = None,
) -> Winner | None:
    """The winner of the finals, or, without finals, the best trial of the search; None if no trial
    came to an end.

    Args:
        storage: URL of the run, from which adapters are fetched that are not on this disk.
    """
    best = verdict.best_run if verdict else None
    if best is None or verdict is None or verdict.winner is None or finals is None:
        best = find_best([record for record in records if record.final_of is None], metric)
        return (
            None
            if best is None
            else Winner(run=best, tested=_find_adapters(paths, [best], storage))
        )
    others = [run for run in verdict.winner.completed if run.trial_id != best.trial_id]
    # The best start point's first run at the full budget, a fresh one if there is any.
    by_id = {record.trial_id: record for record in records}
    fresh = [run.trial_id for run in finals.runs if run.of == finals.baseline]
    names = [*fresh, finals.baseline] if finals.baseline else []
    baseline = [by_id[name] for name in names if by_id[name].status == "completed"][:1]
    return Winner(
        run=best,
        tested=_find_adapters(paths, [best, *others, *baseline], storage),
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
    """
    run_id = winner.run.trial_id
    events = read_events(paths.events)
    for event in reversed(events):
        if event["kind"] == "final_scores" and event["trial_id"] == run_id:
            scores = parse_scores(event["scores"])
            logged = parse_scores(event.get("runs", {run_id: scores["test"]}))
            if winner.tested.keys() <= logged.keys():
                runs = {tested_id: logged[tested_id] for tested_id in winner.tested}
                if event is not find_since_search(events, "final_scores"):  # more trials came
                    log.append("final_scores", trial_id=run_id, scores=scores, runs=runs)
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


def _find_adapters(
    paths: RunPaths, runs: Sequence[TrialRecord], storage: str | None
) -> dict[str, Path]:
    """The runs' last checkpoints, also in a folder of the sweep that was moved."""
    folders = {
        run.trial_id: get_checkpoint_folder(paths.get_trial_folder(run.trial_id), run.num_steps)
        for run in runs
    }
    return {trial_id: fetch_checkpoint(storage, path) for trial_id, path in folders.items()}
