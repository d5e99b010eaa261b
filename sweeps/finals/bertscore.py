"""BERTScore of the final answers, in the driver; a sweep never fails for it.

What was answered is kept in the run (predictions.py), so the scores can also be had later, or of
another encoder: a resume of a finished sweep with other --bertscore flags makes them.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace

from sweeps.config import SweepConfig
from sweeps.finals.outcome import Outcome, Scores
from sweeps.finals.predictions import TEST_BASE, VALIDATION_BASE
from sweeps.records.events import EventLog, parse_scores, read_events
from sweeps.records.paths import RunPaths
from trainables.data.rows import Splits
from trainables.errors import SweepAborted
from trainables.metrics.eval_result import SavedAnswers, read_answers
from trainables.models.model_files import check_encoder

_log = logging.getLogger(__name__)


def add_bertscore(
    config: SweepConfig, splits: Splits, paths: RunPaths, log: EventLog, outcome: Outcome
) -> Outcome:
    """The outcome with BERTScore among its scores, or as it is with one warning why not.

    Labels have none.
    """
    if config.bertscore == "off" or splits.scoring.kind == "classify":
        return outcome
    run_id = outcome.winner.run.trial_id
    encoder, layer = config.bertscore_encoder, config.bertscore_layer
    settings = {"run_id": run_id, "encoder": encoder, "layer": layer}
    for event in read_events(paths.events):
        if event["kind"] == "bertscore" and settings.items() <= event.items():
            return _merge_scores(outcome, parse_scores(event["scores"]))
    folders = {
        "validation": outcome.winner.tested[run_id],
        "validation_base": paths.answers / VALIDATION_BASE,
        "test": paths.answers / run_id,
        "test_base": paths.answers / TEST_BASE,
    }
    try:
        answers = {split: read_answers(folder) for split, folder in folders.items()}
        check_encoder(encoder, layer)  # fails sooner than loading would
        bertscores, fingerprint = _compute_scores(encoder, layer, answers)
    except Exception as failed:  # libraries raise what they like; a sweep never fails for it
        reason = failed.error if isinstance(failed, SweepAborted) else str(failed)
        _log.warning(
            "no BERTScore: %s. All else is there; to add it, repeat the command with --resume",
            " ".join(reason.split()),
        )
        return outcome
    log.append("bertscore", **settings, fingerprint=fingerprint, scores=bertscores)
    return _merge_scores(outcome, bertscores)


def _merge_scores(outcome: Outcome, bertscores: Scores) -> Outcome:
    merged = {split: m | bertscores.get(split, {}) for split, m in outcome.scores.items()}
    return replace(outcome, scores=merged)


def _compute_scores(
    encoder: str, layer: int, answers: Mapping[str, SavedAnswers], device: str | None = None
) -> tuple[Scores, str]:
    """BERTScore by split, and its fingerprint; on a GPU of this machine if it has room."""
    # Loads torch and transformers: the driver does without them otherwise.
    import torch

    from trainables.metrics.bertscore import BertScore

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        metric = BertScore(encoder, layer, device=device)
        means = {
            split: metric.score_means(said.answers, said.targets) for split, said in answers.items()
        }
        return means, metric.compute_fingerprint()
    except torch.OutOfMemoryError:
        if device == "cpu":
            raise
    torch.cuda.empty_cache()
    return _compute_scores(encoder, layer, answers, "cpu")
