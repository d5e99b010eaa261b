"""What a solo trial does at each rung: checkpoint, evaluate, mark as complete, report.

Between two rungs it is saved from time to time, so that a killed one has little to repeat.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from trainables.checkpoint import (
    Progress,
    get_checkpoint_folder,
    keep_last,
    write_progress,
    write_report,
)
from trainables.checkpoint_storage import publish
from trainables.config import TrialConfig, TrialReport
from trainables.data.batches import Batches
from trainables.data.rows import Row
from trainables.errors import TrialFailed
from trainables.files import open_weights
from trainables.metrics.eval_result import EvalResult, write_answers
from trainables.models.memory import measure_peak_gib

SAVE_INTERVAL_S = 60.0
"""Between two checkpoints, which take a second or less."""


@dataclass(kw_only=True, eq=False)
class RungReportCallback(TrainerCallback):  # type: ignore[misc]
    """Watches every step of Trainer and reports at the rungs."""

    config: TrialConfig
    batches: Batches
    """The trial's training rows."""
    eval_rows: Callable[[int], Sequence[Row]]
    """Validation rows of a report at this step."""
    evaluate: Callable[[Sequence[Row]], EvalResult]
    """Scores the model as it stands."""
    report: Callable[[TrialReport], None]
    """Receives each report."""
    seconds: float
    """Busy seconds since the trial began, over all attempts, up to resumed_s."""
    resumed_s: float
    """time.perf_counter() at the start of this attempt, or after its last report."""
    last_step: int
    """Step of the last report; 0 before the first."""
    progress: Progress | None
    """What an earlier attempt has done since."""

    def on_train_begin(self, args: object, state: TrainerState, control: object, **_: Any) -> None:
        """Start the clock of the training speed."""
        self._learning_rate = self.progress.learning_rate if self.progress else 0.0
        self._begin_segment(self.last_step, self.progress)

    def on_step_end(
        self, args: object, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Ask Trainer for a checkpoint at a rung, and when the last is some time ago."""
        is_late = time.perf_counter() - self._saved_s >= SAVE_INTERVAL_S
        control.should_save = is_late or state.global_step in self.config.settings.rungs

    def on_log(
        self, args: object, state: TrainerState, control: object, logs: dict[str, float], **_: Any
    ) -> None:
        """Take note of a step's loss.

        Raises:
            TrialFailed: it or the gradient's norm is not finite.
        """
        if "loss" not in logs:
            return
        for name, key in (("loss", "loss"), ("gradient", "grad_norm")):
            if not math.isfinite(logs[key]):
                raise TrialFailed(f"non-finite {name} at step {state.global_step}")
        self._losses.append(logs["loss"])
        self._learning_rate = logs["learning_rate"]

    def on_save(self, args: object, state: TrainerState, control: object, **_: Any) -> None:
        """Complete the checkpoint that Trainer has just written; at a rung, evaluate and report.

        Raises:
            TrialFailed: a metric of the user's own gave no score.
        """
        step = state.global_step
        training_s = time.perf_counter() - self._segment_s
        open_weights(get_checkpoint_folder(self.config.folder, step), "adapter_config.json")
        if step not in self.config.settings.rungs:
            progress = Progress(
                step=step,
                losses=self._losses,
                learning_rate=self._learning_rate,
                training_s=training_s,
                checkpoint=get_checkpoint_folder(self.config.folder, step),
            )
            write_progress(progress)
            keep_last(self.config.folder)
            publish(self.config.storage, progress.checkpoint, has_ended=False)
            self._saved_s = time.perf_counter()
            return
        rows = self.eval_rows(step)
        scored = self.evaluate(rows)
        if scored.failure is not None:
            raise TrialFailed(scored.failure)
        self.seconds += time.perf_counter() - self.resumed_s
        tokens = self.batches.count_tokens(step)
        report = TrialReport(
            trial_id=self.config.trial_id,
            step=step,
            metrics=scored.metrics,
            train_loss=math.fsum(self._losses) / len(self._losses),
            learning_rate=self._learning_rate,
            epoch=self.batches.compute_epoch(step),
            tokens=tokens,
            tokens_per_s=(tokens - self.batches.count_tokens(self._first_step)) / training_s,
            seconds=self.seconds,
            peak_gib=measure_peak_gib(),
            checkpoint=get_checkpoint_folder(self.config.folder, step),
            eval_rows=len(rows),
        )
        if step >= self.config.settings.max_steps:
            write_answers(report.checkpoint, rows, scored)
        write_report(report)
        keep_last(self.config.folder)
        publish(self.config.storage, report.checkpoint, has_ended=False)
        self.report(report)
        self.resumed_s = time.perf_counter()
        self._begin_segment(step)

    def _begin_segment(self, step: int, progress: Progress | None = None) -> None:
        """Begin what the next report is of: the steps after the last one."""
        self._saved_s = time.perf_counter()
        self._segment_s: float = self._saved_s - (progress.training_s if progress else 0.0)
        self._first_step: int = step
        self._losses: list[float] = list(progress.losses) if progress else []
