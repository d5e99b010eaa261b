"""The sweep's own W&B run: scores, what the winner answered to test, and its adapter."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb

from sweeps.finals import predictions
from sweeps.tracking.run_values import TrackedRun
from trainables.errors import SweepAborted

MAX_ADAPTER_GIB = 2.0
"""A larger one is not uploaded: where it is wanted, sweeps.export brings it."""
MAX_ROWS = 200
MAX_CHARS = 4000

_log = logging.getLogger(__name__)


def log_summary(run: Any, summary: TrackedRun, best: Path, about: Mapping[str, object]) -> None:
    """Writes the scores, the answers and the adapter into their W&B run."""
    files = summary.files
    media = {}
    if summary.confusion is not None:
        media["confusion"] = _draw_confusion(summary.confusion)
    if files and (answers := _make_answers(best)) is not None:
        media["answers"] = answers
    if media:
        run.log(media)
    ((_, _, numbers),) = summary.points
    values = {**summary.values, **numbers}
    run.summary.update(values)
    num_gib = sum(path.stat().st_size for path in files) / 2**30
    if num_gib > MAX_ADAPTER_GIB:
        note = f"left out: {num_gib:.1f} GiB; sweeps.export sends more than {MAX_ADAPTER_GIB:g}"
        run.summary.update({"artifact": note})
    elif files:
        _log_adapter(run, files, {**values, **about})


def _log_adapter(run: Any, files: Sequence[Path], about: Mapping[str, object]) -> None:
    """Logs best/ as an artifact.

    Args:
        about: its metadata, with the id of the W&B run that trained it.
    """
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", str(run.group))[:100]
    artifact = wandb.Artifact(f"{name}-best", "model", metadata=dict(about))
    for path in files:
        artifact.add_file(str(path), skip_cache=True, policy="immutable")  # no copies
    run.log_artifact(artifact, aliases=["best"])


def _make_answers(best: Path) -> Any:
    """What the first rows of test were answered by the winner and by the untuned base.

    All of it is text to W&B, whatever it looks like. Prompts stay here; None without answers.
    """
    try:
        answered = predictions.read(best)
    except SweepAborted as unread:
        _log.debug("no answers for W&B: %s", unread)
        return None
    metrics = sorted({name for row in answered for name in row.scores})
    columns = ["row", "reference", "base", "winner"]
    columns += [f"{of}/{name}" for name in metrics for of in ("base", "winner")]
    table = wandb.Table(columns=columns, allow_mixed_types=True)
    for row in answered[:MAX_ROWS]:
        texts = (row.id, row.target, row.base_prediction, row.prediction)
        scores = [of.get(name) for name in metrics for of in (row.base_scores, row.scores)]
        table.add_data(*(text[:MAX_CHARS] for text in texts), *scores)
    return table


def _draw_confusion(confusion: Mapping[str, Any]) -> Any:
    labels, counts = confusion["labels"], confusion["counts"]
    cells = [(t, p, n) for t, row in enumerate(counts) for p, n in enumerate(row)]
    return wandb.plot.confusion_matrix(  # which counts every row again
        y_true=[target for target, _, n in cells for _ in range(n)],
        preds=[prediction for _, prediction, n in cells for _ in range(n)],
        class_names=labels,
        title="winner on test: what was taken for what",
    )
