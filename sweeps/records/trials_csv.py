"""A finished sweep as rows: every trial has one, with its status; best() knows the direction."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

from sweeps.records.paths import write_file
from sweeps.records.trial_record import TrialRecord
from trainables.config import Metric, TrialReport
from trainables.packing.service.ledger import Share

BUDGET_REASON = "time budget"
"""Why a trial was stopped that could not have reported in time."""
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
    share: Share | None = None
    """Of the GPUs' time; None where the packs' ledgers do not tell."""

    @property
    def steps(self) -> int:
        """Optimizer steps at the last report."""
        return self.last.step if self.last else 0

    @property
    def value(self) -> float | None:
        """The metric at the last report."""
        return self.last.metrics[self.metric.name] if self.last else None


def rows(
    histories: Iterable[TrialRecord],
    metric: Metric,
    shares: Mapping[str, Share] = MappingProxyType({}),
) -> list[TrialRow]:
    """A row for every trial, in the order of proposal.

    Args:
        shares: of the GPUs' time, by trial.
    """
    return [
        TrialRow(
            trial_id=history.trial_id,
            status=history.status or "running",
            reason=history.reason,
            params={name: asdict(history.params)[name] for name in PARAMS},
            metric=metric,
            last=history.reports[-1] if history.reports else None,
            share=shares.get(history.trial_id),
        )
        for history in histories
    ]


def ranked(trials: Sequence[TrialRow]) -> list[TrialRow]:
    """Trials that reported, best first: a higher rung comes before any score of a lower one."""
    scored = [row for row in trials if row.value is not None and row.status != "failed"]
    sign = -1.0 if scored and scored[0].metric.mode == "max" else 1.0
    return sorted(scored, key=lambda row: (-row.steps, sign * (row.value or 0.0), row.trial_id))


def best(trials: Sequence[TrialRow]) -> TrialRow | None:
    """The best of the trials that completed; None if none did.

    A trial that was stopped may show a better score at its lower rung. That is the score of an
    adapter in the middle of its schedule, perhaps on fewer rows, and the highest of many: it says
    which configurations are worth more steps, not which adapter is better. So it is never ranked
    with scores of the last rung. To ask such a trial, train it to the end: finals do, with the
    places that completed trials leave.

    Where a budget has ended the search before any could, the best of the highest rung reached.
    """
    order = ranked(trials)
    ended_early = any(row.reason == BUDGET_REASON for row in trials)
    completed = [row for row in order if row.status == "completed"]
    return next(iter(completed or (order if ended_early else [])), None)


def count_by_status(trials: Iterable[TrialRow]) -> dict[str, int]:
    """Number of trials by status, those without a trial left out."""
    return dict(Counter(row.status for row in trials))


def write_csv(
    trials: Sequence[TrialRow],
    path: Path,
    more: Mapping[str, Mapping[str, object]] = MappingProxyType({}),
) -> None:
    """Writes trials.csv atomically.

    Args:
        more: further cells of a trial, by its id and by column; they stand at the end.

    Raises:
        SweepAborted: the disk is full or gone; an older table stays.
    """
    scores = sorted({name for row in trials if row.last for name in row.last.metrics})
    header = ["trial_id", "status", "reason", *PARAMS, "steps", "metric", "value", *scores,
              "train_loss", "gpu_seconds", "tokens", "scored_tokens", "tokens_per_s", "peak_gib",
              *dict.fromkeys(name for cells in more.values() for name in cells)]  # fmt: skip
    text = io.StringIO()
    table = csv.DictWriter(text, header, restval="")
    table.writeheader()
    table.writerows({**_cells(row), **more.get(row.trial_id, {})} for row in trials)
    write_file(path, text.getvalue())


def _cells(row: TrialRow) -> dict[str, object]:
    cells: dict[str, object] = {
        "trial_id": row.trial_id,
        "status": row.status,
        "reason": row.reason,
        **row.params,
        "steps": row.steps,
        "metric": row.metric.name,
    }
    if row.share is not None:
        cells["gpu_seconds"] = round(row.share.seconds, 3)
        cells["scored_tokens"] = row.share.scored_tokens
    if row.last is None:
        return cells
    last = row.last
    if row.share is None and last.gpu_seconds:
        cells["gpu_seconds"] = round(last.gpu_seconds, 3)
    return (
        cells
        | last.metrics
        | {
            "value": row.value,
            "train_loss": last.train_loss,
            "tokens": last.tokens,
            "tokens_per_s": round(last.tokens_per_s, 1),
            "peak_gib": round(last.peak_gib, 3),
        }
    )
