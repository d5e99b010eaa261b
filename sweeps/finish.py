"""The end of a sweep: the best trial is tested once, and best/ is written."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sweeps import preflight, results
from sweeps.config import SweepConfig
from sweeps.events import EventLog, params_from_event, read_events
from sweeps.export import write_best as write_best_folder
from sweeps.model_card import CardFacts
from sweeps.paths import RunPaths
from sweeps.preflight import Preflight
from sweeps.results import TrialRow
from trainables.checkpoint import checkpoint_folder

Scores = dict[str, dict[str, float]]
"""Metrics by name, by split: validation, validation_base, test, test_base."""


def final_scores(
    config: SweepConfig,
    paths: RunPaths,
    trials: Sequence[TrialRow],
    log: EventLog,
    score: Callable[[Path], Scores],
) -> Scores:
    """Scores the best adapter and the untuned base on test, and the base on validation.

    Test is looked at once for each best trial: a resumed sweep takes what the log holds.

    Args:
        score: gives validation_base, test_base and test for an adapter's folder.
    """
    best = results.best(trials)
    assert best is not None and best.last is not None
    for event in read_events(paths.events):
        if event["kind"] == "final_scores" and event["trial_id"] == best.trial_id:
            held: Scores = event["scores"]
            return held
    scores = score(_checkpoint(paths, best))
    scores["validation"] = dict(best.last.metrics)
    log.append("final_scores", trial_id=best.trial_id, scores=scores)
    return scores


def write_best(
    config: SweepConfig,
    found: Preflight,
    paths: RunPaths,
    trials: Sequence[TrialRow],
    scores: Scores,
) -> None:
    """Writes the best adapter with its tokenizer and model card."""
    best = results.best(trials)
    assert best is not None and best.last is not None
    params = next(
        params_from_event(event)
        for event in read_events(paths.events)
        if event["kind"] == "trial_started" and event["trial_id"] == best.trial_id
    )
    rows = {name: len(getattr(found.splits, name)) for name in ("train", "validation", "test")}
    facts = CardFacts(
        base_model=config.model,
        dataset=config.data or found.task.dataset,
        dataset_rows=rows,
        dropped_rows={k: n for k, n in found.splits.counts.items() if k not in rows and n},
        prompt_template=found.splits.prompt_template,
        task=config.task,
        params=params,
        settings=config.settings,
        metric=found.task.metric,
        scores=scores,
        sweep_name=config.name,
        trial_id=best.trial_id,
        num_trials_by_status=results.count_by_status(trials),
        top_trials=[_card_row(row) for row in results.ranked(trials)[:10]],
        versions=preflight.versions(),
        command=preflight.sweep_command(config),
    )
    write_best_folder(paths.best, _checkpoint(paths, best), facts, config.model)


def _checkpoint(paths: RunPaths, row: TrialRow) -> Path:
    """The trial's last checkpoint, also in a run's folder that was moved."""
    return checkpoint_folder(paths.trial(row.trial_id), row.steps)


def _card_row(row: TrialRow) -> dict[str, Any]:
    assert row.last is not None
    value = round(row.last.metrics[row.metric.name], 2)
    return {"trial": row.trial_id, "status": row.status, **row.params, "steps": row.steps,
            row.metric.name: value}  # fmt: skip
