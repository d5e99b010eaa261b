"""BERTScore of the final answers, in the driver; a sweep never fails for it.

What was answered is kept in the run (predictions.py), so the scores can also be had later, or of
another encoder: a resume of a finished sweep with other --bertscore flags makes them.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeps.config import SweepConfig
from sweeps.finals.predictions import TEST_BASE, VALIDATION_BASE
from sweeps.records.events import EventLog, read_events
from sweeps.records.paths import RunPaths
from trainables.config import Kind
from trainables.errors import SweepAborted
from trainables.metrics.eval_result import SavedAnswers, read_answers
from trainables.models.hub_files import hub_file, hub_has

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
LAYER_COUNTS = ("num_hidden_layers", "n_layers", "n_layer", "encoder_layers", "num_layers")
"""What architectures call their number of blocks in config.json."""

Scores = dict[str, dict[str, float]]
"""Metrics by name, by split."""

_log = logging.getLogger(__name__)


def check(config: SweepConfig, kind: Kind) -> None:
    """What can be told before a GPU is used, if BERTScore was asked for.

    Raises:
        SweepAborted: the task has labels, or the encoder cannot be had.
    """
    if config.bertscore != "on":
        return
    if kind == "classify":
        raise SweepAborted(
            f"BERTScore compares texts, and {config.task} has labels here",
            "leave out --bertscore on",
        )
    _check_encoder(config.bertscore_encoder, config.bertscore_layer)


def add_bertscore(
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
        run_id: of the tuned adapter, as predictions.keep was given it.
        adapter: its checkpoint, with its answers to validation.
        kind: of the task's targets; labels have no BERTScore.
    """
    if config.bertscore == "off" or kind == "classify":
        return scores
    encoder = config.bertscore_encoder
    settings = {"run_id": run_id, "encoder": encoder, "layer": config.bertscore_layer}
    for event in read_events(paths.events):
        if event["kind"] == "bertscore" and settings.items() <= event.items():
            return _merge(scores, event["scores"])
    folders = {
        "validation": adapter,
        "validation_base": paths.answers / VALIDATION_BASE,
        "test": paths.answers / run_id,
        "test_base": paths.answers / TEST_BASE,
    }
    try:
        answers = {split: read_answers(folder) for split, folder in folders.items()}
        _check_encoder(encoder, config.bertscore_layer)  # fails sooner than loading would
        bertscores, fingerprint = _compute(encoder, config.bertscore_layer, answers)
    except (SweepAborted, OSError, ValueError, RuntimeError) as failed:
        reason = failed.error if isinstance(failed, SweepAborted) else str(failed)
        _log.warning(
            "no BERTScore: %s. All else is there; to add it, repeat the command with --resume",
            " ".join(reason.split()),
        )
        return scores
    log.append("bertscore", **settings, fingerprint=fingerprint, scores=bertscores)
    return _merge(scores, bertscores)


def _merge(scores: Scores, bertscores: Scores) -> Scores:
    return {split: metrics | bertscores.get(split, {}) for split, metrics in scores.items()}


def _compute(encoder: str, layer: int, answers: Mapping[str, SavedAnswers]) -> tuple[Scores, str]:
    """BERTScore by split, and its fingerprint; on a GPU of this machine if it has room."""
    # Loads torch and transformers: the driver does without them otherwise.
    import torch

    from trainables.metrics.bertscore import BertScore, BertScoreSettings

    def compute_on(device: str) -> tuple[Scores, str]:
        metric = BertScore(BertScoreSettings(encoder=encoder, layer=layer, device=device))
        means = {split: metric.means(said.answers, said.targets) for split, said in answers.items()}
        return means, metric.fingerprint()

    if torch.cuda.is_available():
        try:
            return compute_on("cuda")
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
    return compute_on("cpu")


def _check_encoder(encoder: str, layer: int) -> None:
    """Looks at a folder's or a Hub model's config and weights; downloads the config alone.

    Raises:
        SweepAborted: there is no such model, it has fewer layers, or no safetensors weights.
    """
    fix = "name a folder or a Hub model with safetensors weights: --bertscore-encoder"
    folder = Path(encoder)
    is_local = folder.is_dir()
    try:
        path = folder / "config.json" if is_local else hub_file(encoder, "config.json")
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        counts = [config[n] for n in LAYER_COUNTS if isinstance(config.get(n), int)]
        has_weights = any(
            (folder / name).is_file() if is_local else hub_has(encoder, name) for name in WEIGHTS
        )
    except (OSError, ValueError, AttributeError) as refused:
        reason = str(refused).strip().partition("\n")[0] or type(refused).__name__
        raise SweepAborted(
            f"BERTScore's encoder {encoder} cannot be had: {reason}",
            f"{fix}, or leave out --bertscore",
        ) from None
    if counts and layer > counts[0]:
        raise SweepAborted(
            f"BERTScore's layer is {layer}, and {encoder} has {counts[0]}",
            f"give a layer from 1 to {counts[0]}: --bertscore-layer",
        )
    if not has_weights:
        raise SweepAborted(f"BERTScore's encoder {encoder} has no safetensors weights", fix)
