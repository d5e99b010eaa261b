"""trials.csv, in which every trial has a row with its status; and how trials are ranked."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from sweeps.records.paths import abort_if_unwritable
from sweeps.records.trial_record import TrialRecord
from trainables.config import Hyperparameters, Metric
from trainables.files import write_atomic, write_table

BUDGET_REASON = "time budget"
"""Why a trial was stopped that could not have reported in time."""
STOP_REASON = "stopped by hand"
"""Why a trial was stopped that a user had asked to stop."""
FINISH_REASON = "search ended by hand"
"""Why a trial was stopped that trained when a user asked for the finals."""
EARLY_REASONS = frozenset((BUDGET_REASON, STOP_REASON, FINISH_REASON))
"""Why trials were stopped, whatever their scores."""
PARAMS = (
    *("lora_rank", "lora_alpha", "lora_dropout", "learning_rate", "use_rslora"),
    "target_modules",
)
Unended = Literal["running", "unfinished"]
"""What a trial that has not ended is called, by whether its sweep's process lives."""


def rank(trials: Iterable[TrialRecord], metric: Metric) -> list[TrialRecord]:
    """Trials that reported, best first: a higher rung comes before any score of a lower one."""
    scored = [trial for trial in trials if trial.reports and trial.status != "failed"]
    return sorted(scored, key=lambda t: (-t.num_steps, -t.get_worth(metric), t.trial_id))


def find_best(trials: Sequence[TrialRecord], metric: Metric) -> TrialRecord | None:
    """The best of the trials that completed; None if none did.

    A trial that was stopped may show a better score at its lower rung. That is the score of an
    adapter in the middle of its schedule, perhaps on fewer rows, and the highest of many: it says
    which configurations are worth more steps, not which adapter is better. So it is never ranked
    with scores of the last rung. To ask such a trial, train it to the end: finals do, with the
    slots that completed trials leave.

    Where a budget or a user has ended the search before any could, the best of the highest rung
    reached.
    """
    ranked = rank(trials, metric)
    ended_early = any(trial.reason in EARLY_REASONS for trial in trials)
    completed = [trial for trial in ranked if trial.status == "completed"]
    return next(iter(completed or (ranked if ended_early else [])), None)


def count_by_status(
    trials: Iterable[TrialRecord], unended: Unended = "unfinished"
) -> dict[str, int]:
    """Number of trials by status, those without a trial left out."""
    return dict(Counter(trial.status or unended for trial in trials))


def list_shown_params(params: Hyperparameters) -> dict[str, object]:
    """What tables show of them."""
    shown = {name: getattr(params, name) for name in PARAMS}
    return shown | {"target_modules": ",".join(params.target_modules)}


def write_csv(
    trials: Sequence[TrialRecord],
    metric: Metric,
    path: Path,
    more: Mapping[str, Mapping[str, object]] | None = None,
) -> None:
    """Writes trials.csv atomically, for a sweep that runs.

    Raises:
        SweepAborted: the disk is full or gone; an older table stays.
    """
    text = make_csv(trials, metric, "running", more)
    with abort_if_unwritable(path):
        write_atomic(path, text)


def make_csv(
    trials: Sequence[TrialRecord],
    metric: Metric,
    unended: Unended,
    more: Mapping[str, Mapping[str, object]] | None = None,
) -> str:
    """The text of trials.csv.

    Args:
        more: further cells of a trial, by its id and by column; they stand at the end.
    """
    more = more or {}
    scores = sorted({name for trial in trials if trial.last for name in trial.last.metrics})
    header = [
        *("trial_id", "status", "reason", *PARAMS, "steps", "metric", "value", *scores),
        *("train_loss", "gpu_seconds", "tokens", "scored_tokens", "tokens_per_s", "peak_gib"),
        *dict.fromkeys(name for cells in more.values() for name in cells),
    ]
    rows = ({**_make_cells(t, metric, unended), **more.get(t.trial_id, {})} for t in trials)
    return write_table([header, *([cells.get(name, "") for name in header] for cells in rows)])


def _make_cells(trial: TrialRecord, metric: Metric, unended: Unended) -> dict[str, object]:
    cells: dict[str, object] = {
        "trial_id": trial.trial_id,
        "status": trial.status or unended,
        "reason": trial.reason,
        **list_shown_params(trial.params),
        "steps": trial.num_steps,
        "metric": metric.name,
    }
    if trial.last is not None:
        last = trial.last
        cells |= {
            **last.metrics,
            "value": trial.get_value(metric),
            "train_loss": last.train_loss,
            "tokens": last.tokens,
            "tokens_per_s": round(last.tokens_per_s, 1),
            "peak_gib": round(last.peak_gib, 3),
            "gpu_seconds": round(last.gpu_seconds, 3) or None,
        }
    if trial.share is not None:
        cells["gpu_seconds"] = round(trial.share.seconds, 3)
        cells["scored_tokens"] = trial.share.scored_tokens
    return cells
