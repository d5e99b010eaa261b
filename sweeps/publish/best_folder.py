"""best/: the winner's adapter with its tokenizer, model card and what it said to test."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sweeps.checks.commands import sweep_command
from sweeps.checks.environment import list_versions
from sweeps.checks.preflight import Preflight
from sweeps.config import SweepConfig
from sweeps.export import write_best as write_best_folder
from sweeps.finals import predictions
from sweeps.finals.final_test import Outcome
from sweeps.finals.verdict import Verdict
from sweeps.publish.model_card import CardFacts
from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import TrialRecord
from sweeps.records.trials_csv import count_by_status, rank, shown_params
from trainables.config import Metric
from trainables.metrics.classification import Confusion

MAX_CARD_TRIALS = 10
"""Trials that the model card lists."""


def write_best(
    config: SweepConfig,
    preflight: Preflight,
    paths: RunPaths,
    trials: Sequence[TrialRecord],
    outcome: Outcome,
    verdict: Verdict | None = None,
) -> Confusion | None:
    """Writes the folder.

    Args:
        trials: of the search.

    Returns:
        Which labels the winner took for which; None of texts.
    """
    run, metric, splits = outcome.winner.run, preflight.task.metric, preflight.splits
    answered = predictions.load(paths, splits.test, run.trial_id)
    confusion = predictions.count_confusions(answered, splits)
    rows = {name: len(getattr(splits, name)) for name in ("train", "validation", "test")}
    facts = CardFacts(
        base_model=config.model,
        dataset=config.data or preflight.task.dataset,
        dataset_rows=rows,
        dropped_rows={k: n for k, n in splits.counts.items() if k not in rows and n},
        prompt_template=splits.prompt_template,
        task=config.task,
        params=run.params,
        settings=replace(config.settings, seed=config.seed if run.seed is None else run.seed),
        metric=metric,
        scores=outcome.scores,
        verdict=verdict,
        confusion=confusion,
        sweep_name=config.name,
        trial_id=run.trial_id,
        num_trials_by_status=count_by_status(trials),
        top_trials=[_make_card_row(t, metric) for t in rank(trials, metric)[:MAX_CARD_TRIALS]],
        versions=list_versions(),
        command=sweep_command(config),
    )
    adapter = outcome.winner.tested[run.trial_id]
    more_files = predictions.make_files(answered, confusion)
    write_best_folder(paths.best, adapter, facts, config.model, more_files)
    return confusion


def _make_card_row(trial: TrialRecord, metric: Metric) -> dict[str, Any]:
    return {
        "trial": trial.trial_id,
        "status": trial.status or "running",
        **shown_params(trial),
        "steps": trial.num_steps,
        metric.name: round(trial.reports[-1].metrics[metric.name], 2),
    }
