"""BERTScore of the final answers, in the driver; a sweep never fails for it.

What was answered is kept in the run (predictions.py), so the scores can also be had later, or of
another encoder: a resume of a finished sweep with other --bertscore flags makes them.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

from sweeps.config import SweepConfig, model_source
from sweeps.finals.predictions import TEST_BASE, VALIDATION_BASE
from sweeps.records.events import EventLog, read_events
from sweeps.records.paths import RunPaths
from trainables.config import Kind
from trainables.errors import SweepAborted
from trainables.metrics.encoder_files import check_encoder
from trainables.metrics.eval_result import SavedAnswers, read_answers

Scores = dict[str, dict[str, float]]

_log = logging.getLogger(__name__)


def check(config: SweepConfig, kind: Kind) -> None:
    """What can be told before a GPU is used, if BERTScore was asked for.

    Raises:
        SweepAborted: the task has labels, or the encoder cannot be had.
    """
    if config.bertscore == "on" and kind == "classify":
        raise SweepAborted(
            f"BERTScore compares texts, and {config.task} has labels here",
            "leave out --bertscore on",
        )
    if config.bertscore == "on":
        check_encoder(model_source(config.bertscore_encoder), config.bertscore_layer)


def added(
    config: SweepConfig,
    paths: RunPaths,
    log: EventLog,
    run_id: str,
    adapter: Path,
    scores: Scores,
    *,
    kind: Kind,
) -> Scores:
    """The scores with BERTScore among them, or as they are with one warning why not.

    Args:
        run_id: of the tuned adapter, as predictions.save was told.
        adapter: its checkpoint, with its answers to validation.
        scores: metrics by name, by split.
        kind: of the task's targets; labels have no BERTScore.
    """
    if config.bertscore == "off" or kind == "classify":
        return scores
    encoder = model_source(config.bertscore_encoder)
    settings = {"run_id": run_id, "encoder": encoder, "layer": config.bertscore_layer}
    for event in read_events(paths.events):
        if event["kind"] == "bertscore" and settings.items() <= event.items():
            return _merged(scores, event["scores"])
    try:
        answers = _answers(paths, run_id, adapter)
        check_encoder(encoder, config.bertscore_layer)  # says at once what lacks
        found, fingerprint = _scored(config, answers)
    except (SweepAborted, OSError, ValueError, RuntimeError) as failed:
        reason = failed.error if isinstance(failed, SweepAborted) else str(failed)
        _log.warning(
            "no BERTScore: %s. All else is there; to add it, repeat the command with --resume",
            " ".join(reason.split()),
        )
        return scores
    log.append("bertscore", **settings, fingerprint=fingerprint, scores=found)
    return _merged(scores, found)


def _merged(scores: Scores, found: Scores) -> Scores:
    return {split: metrics | found.get(split, {}) for split, metrics in scores.items()}


def _answers(paths: RunPaths, run_id: str, adapter: Path) -> dict[str, SavedAnswers]:
    folders = {
        "validation": adapter,
        "validation_base": paths.answers / VALIDATION_BASE,
        "test": paths.answers / run_id,
        "test_base": paths.answers / TEST_BASE,
    }
    return {split: read_answers(folder) for split, folder in folders.items()}


def _scored(config: SweepConfig, answers: Mapping[str, SavedAnswers]) -> tuple[Scores, str]:
    """BERTScore by split, and its fingerprint; on a GPU of this machine if it has room."""
    # Loads torch and transformers: the driver does without them otherwise.
    import torch

    from trainables.metrics.bertscore import BertScore, BertScoreSettings

    def on(device: str) -> tuple[Scores, str]:
        metric = BertScore(
            BertScoreSettings(
                encoder=model_source(config.bertscore_encoder),
                layer=config.bertscore_layer,
                device=device,
            )
        )
        found = {split: metric.means(said.answers, said.targets) for split, said in answers.items()}
        return found, metric.fingerprint()

    if torch.cuda.is_available():
        try:
            return on("cuda")
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
    return on("cpu")
