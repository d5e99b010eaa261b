"""A finished sweep as rows: every trial has one, with its status; best() knows the direction."""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sweeps.events import TrialHistory
from trainables.config import Metric, TrialReport
from trainables.errors import SweepAborted

PARAMS = ("lora_rank", "lora_alpha", "lora_dropout", "learning_rate", "use_rslora")


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One trial as trials.csv shows it."""

    trial_id: str
    status: str
    """completed, stopped or failed; running in a sweep that was interrupted."""
    reason: str
    params: dict[str, object]
    metric: Metric
    last: TrialReport | None
    """The report at the highest rung that the trial reached; None if it made none."""

    @property
    def steps(self) -> int:
        """Optimizer steps at the last report."""
        return self.last.step if self.last else 0

    @property
    def value(self) -> float | None:
        """The metric at the last report."""
        return self.last.metrics[self.metric.name] if self.last else None


def rows(histories: Iterable[TrialHistory], metric: Metric) -> list[TrialRow]:
    """A row for every trial, in the order of proposal."""
    return [
        TrialRow(
            trial_id=history.trial_id,
            status=history.status or "running",
            reason=history.reason,
            params={name: asdict(history.params)[name] for name in PARAMS},
            metric=metric,
            last=history.reports[-1] if history.reports else None,
        )
        for history in histories
    ]


def ranked(trials: Sequence[TrialRow]) -> list[TrialRow]:
    """Trials that reported, best first: a higher rung comes before any score of a lower one."""
    scored = [row for row in trials if row.value is not None and row.status != "failed"]
    sign = -1.0 if scored and scored[0].metric.mode == "max" else 1.0
    return sorted(scored, key=lambda row: (-row.steps, sign * (row.value or 0.0), row.trial_id))


def best(trials: Sequence[TrialRow]) -> TrialRow | None:
    """The best of the trials that completed; None if none did."""
    return next((row for row in ranked(trials) if row.status == "completed"), None)


def count_by_status(trials: Iterable[TrialRow]) -> dict[str, int]:
    """Number of trials by status, those without a trial left out."""
    return dict(Counter(row.status for row in trials))


def write_csv(trials: Sequence[TrialRow], path: Path) -> None:
    """Writes trials.csv aside and renames it.

    Raises:
        SweepAborted: the disk is full or gone; an older table stays.
    """
    scores = sorted({name for row in trials if row.last for name in row.last.metrics})
    header = ["trial_id", "status", "reason", *PARAMS, "steps", "metric", "value", *scores,
              "train_loss", "gpu_seconds", "tokens", "tokens_per_s", "peak_gib"]  # fmt: skip
    text = io.StringIO()
    table = csv.DictWriter(text, header, restval="")
    table.writeheader()
    table.writerows(_cells(row) for row in trials)
    aside = path.with_name(f".{path.name}.aside")
    try:
        aside.write_text(text.getvalue(), encoding="utf-8")
        os.replace(aside, path)
    except OSError as refused:
        raise SweepAborted(
            f"{path} cannot be written: {refused.strerror}",
            "free space there, then repeat the command with --resume",
        ) from None


def _cells(row: TrialRow) -> dict[str, object]:
    cells: dict[str, object] = {
        "trial_id": row.trial_id,
        "status": row.status,
        "reason": row.reason,
        **row.params,
        "steps": row.steps,
        "metric": row.metric.name,
    }
    if row.last is None:
        return cells
    last = row.last
    return (
        cells
        | last.metrics
        | {
            "value": row.value,
            "train_loss": last.train_loss,
            "gpu_seconds": round(last.seconds, 3),
            "tokens": last.tokens,
            "tokens_per_s": round(last.tokens_per_s, 1),
            "peak_gib": round(last.peak_gib, 3),
        }
    )
