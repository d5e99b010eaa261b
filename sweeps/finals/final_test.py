"""The end of a sweep: the winner is tested once, and best/ is written."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sweeps.checks import preflight
from sweeps.checks.preflight import Preflight
from sweeps.config import SweepConfig
from sweeps.export import write_best as write_best_folder
from sweeps.finals import bertscore, predictions
from sweeps.finals.finalists import Finals
from sweeps.finals.verdict import Verdict
from sweeps.publish.model_card import CardFacts
from sweeps.records import trials_csv
from sweeps.records.events import EventLog, read_events
from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import TrialRecord
from sweeps.records.trials_csv import TrialRow
from trainables.checkpoint import checkpoint_folder
from trainables.config import Hyperparameters
from trainables.metrics.classification import Confusion
from trainables.metrics.eval_result import EvalResult

Scores = dict[str, dict[str, float]]
"""Metrics by name, by split: validation, validation_base, test, test_base."""


@dataclass(frozen=True, kw_only=True)
class Winner:
    """The configuration that won, and the one of its runs whose adapter is kept."""

    trial_id: str
    """The search's trial."""
    run_id: str
    """The run in best/: trial_id itself, or a run of the finals."""
    params: Hyperparameters
    seed: int | None = None
    """Of the run in best/; None is the sweep's."""
    validation: dict[str, float]
    """Metrics of the run at its last report."""
    tested: dict[str, Path]
    """Adapters that test is looked at with, by run: the kept one, the winner's other seeds, and the
    baseline's."""
    baseline: str | None = None
    """The best start point's run at the full budget, if it is there."""


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
        return [one for name, one in self.runs.items() if name != self.winner.baseline]


def find_winner(
    paths: RunPaths,
    histories: Sequence[TrialRecord],
    trials: Sequence[TrialRow],
    finals: Finals | None,
    verdict: Verdict | None,
) -> Winner | None:
    """The winner of the finals, or, without finals, the best trial of the search; None if no trial
    came to an end.

    Args:
        histories: of the search's trials and of the finals' runs.
        trials: rows of the search's trials.
    """
    known = {history.trial_id: history for history in histories}
    if finals is None or verdict is None or verdict.winner is None or verdict.best_run is None:
        best = trials_csv.best(trials)
        return None if best is None else _winner(paths, known, best.trial_id, (best.trial_id,))
    run_ids = [run.trial_id for run in verdict.winner.completed]
    kept = verdict.best_run.trial_id
    ordered = (kept, *(run_id for run_id in run_ids if run_id != kept))
    return _winner(paths, known, verdict.winner.trial_id, ordered, _baseline(finals, known))


def final_scores(
    config: SweepConfig,
    found: Preflight,
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
    for event in read_events(paths.events):
        if event["kind"] == "final_scores" and event["trial_id"] == winner.run_id:
            held: Scores = event.get("runs", {winner.run_id: event["scores"]["test"]})
            if winner.tested.keys() <= held.keys():
                return Outcome(
                    winner=winner,
                    scores=event["scores"],
                    runs={run_id: held[run_id] for run_id in winner.tested},
                )
    scored = score(winner.tested)
    predictions.keep(paths, found.splits, config.settings, scored)
    metrics = {name: one.metrics for name, one in scored.items()}
    runs = {run_id: metrics.pop(run_id) for run_id in winner.tested}
    scores = {**metrics, "test": runs[winner.run_id], "validation": winner.validation}
    log.append("final_scores", trial_id=winner.run_id, scores=scores, runs=runs)
    return Outcome(winner=winner, scores=scores, runs=runs)


def add_bertscore(
    config: SweepConfig, found: Preflight, paths: RunPaths, log: EventLog, outcome: Outcome
) -> Outcome:
    """The outcome with BERTScore among the scores, if that was asked for and can be had."""
    run_id = outcome.winner.run_id
    scores = bertscore.added(
        config, paths, log, run_id, outcome.winner.tested[run_id], outcome.scores,
        kind=found.splits.scoring.kind,
    )  # fmt: skip
    return replace(outcome, scores=scores)


def write_best(
    config: SweepConfig,
    found: Preflight,
    paths: RunPaths,
    trials: Sequence[TrialRow],
    outcome: Outcome,
    verdict: Verdict | None = None,
) -> Confusion | None:
    """Writes the winner's adapter with its tokenizer, model card and what it said to test.

    Returns:
        Which labels it took for which; None of texts.
    """
    winner = outcome.winner
    said = predictions.predictions(paths, found.splits.test, winner.run_id)
    confusion = predictions.confusion_of(said, found.splits)
    rows = {name: len(getattr(found.splits, name)) for name in ("train", "validation", "test")}
    facts = CardFacts(
        base_model=config.model,
        dataset=config.data or found.task.dataset,
        dataset_rows=rows,
        dropped_rows={k: n for k, n in found.splits.counts.items() if k not in rows and n},
        prompt_template=found.splits.prompt_template,
        task=config.task,
        params=winner.params,
        settings=replace(config.settings, seed=config.seed if winner.seed is None else winner.seed),
        metric=found.task.metric,
        scores=outcome.scores,
        verdict=verdict,
        confusion=confusion,
        sweep_name=config.name,
        trial_id=winner.run_id,
        num_trials_by_status=trials_csv.count_by_status(trials),
        top_trials=[_card_row(row) for row in trials_csv.ranked(trials)[:10]],
        versions=preflight.versions(),
        command=preflight.sweep_command(config),
    )
    adapter = winner.tested[winner.run_id]
    more_files = predictions.files_of(said, confusion)
    write_best_folder(paths.best, adapter, facts, config.model, more_files)
    return confusion


def _winner(
    paths: RunPaths,
    known: Mapping[str, TrialRecord],
    trial_id: str,
    run_ids: Sequence[str],
    baseline: str | None = None,
) -> Winner:
    """The winner whose runs these are, the kept one first."""
    kept = known[run_ids[0]]
    tested = [*run_ids, *([baseline] if baseline else [])]
    return Winner(
        trial_id=trial_id,
        run_id=kept.trial_id,
        params=kept.params,
        seed=kept.seed,
        validation=dict(kept.reports[-1].metrics),
        tested={run_id: _adapter(paths, known[run_id]) for run_id in dict.fromkeys(tested)},
        baseline=baseline if baseline not in run_ids else None,
    )


def _baseline(finals: Finals, known: Mapping[str, TrialRecord]) -> str | None:
    """The best start point's first run at the full budget, a fresh one if there is any."""
    if finals.baseline is None:
        return None
    run_ids = [*(run.trial_id for run in finals.runs if run.of == finals.baseline), finals.baseline]
    return next((one for one in run_ids if known[one].status == "completed"), None)


def _adapter(paths: RunPaths, history: TrialRecord) -> Path:
    """The run's last checkpoint, also in a folder of the sweep that was moved."""
    return checkpoint_folder(paths.trial(history.trial_id), history.reports[-1].step)


def _card_row(row: TrialRow) -> dict[str, Any]:
    assert row.last is not None
    value = round(row.last.metrics[row.metric.name], 2)
    return {"trial": row.trial_id, "status": row.status, **row.params, "steps": row.steps,
            row.metric.name: value}  # fmt: skip
