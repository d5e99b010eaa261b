"""What a solo trial does at each rung: checkpoint, evaluate, mark as complete, report."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from trainables.checkpoint import checkpoint_folder, keep_last, write_report
from trainables.config import TrialConfig, TrialReport
from trainables.data.batches import Batches
from trainables.data.rows import Row
from trainables.errors import TrialFailed
from trainables.metrics.eval_result import EvalResult, write_answers
from trainables.models.memory import peak_gib
from trainables.storage import publish


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

    def on_train_begin(self, args: object, state: TrainerState, control: object, **_: Any) -> None:
        """Start the clock of the training speed."""
        self._learning_rate = 0.0
        self._begin_segment(state.global_step)

    def on_step_end(
        self, args: object, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Ask Trainer for a checkpoint at a rung."""
        control.should_save = state.global_step in self.config.settings.rungs

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
        """Evaluate, complete the checkpoint that Trainer has just written, and report.

        Raises:
            TrialFailed: a metric of the user's own gave no score.
        """
        step = state.global_step
        training_s = time.perf_counter() - self._segment_s
        rows = self.eval_rows(step)
        scored = self.evaluate(rows)
        if scored.failure is not None:
            raise TrialFailed(scored.failure)
        self.seconds += time.perf_counter() - self.resumed_s
        tokens = self.batches.tokens(step)
        report = TrialReport(
            trial_id=self.config.trial_id,
            step=step,
            metrics=scored.metrics,
            train_loss=math.fsum(self._losses) / len(self._losses),
            learning_rate=self._learning_rate,
            epoch=self.batches.epoch(step),
            tokens=tokens,
            tokens_per_s=(tokens - self.batches.tokens(self._first_step)) / training_s,
            seconds=self.seconds,
            peak_gib=peak_gib(),
            checkpoint=checkpoint_folder(self.config.folder, step),
            eval_rows=len(rows),
        )
        if step >= self.config.settings.max_steps:
            write_answers(report.checkpoint, rows, scored)
        write_report(report)
        keep_last(self.config.folder)
        if self.config.storage is not None:
            publish(report.checkpoint, self.config.storage, has_ended=False)
        self.report(report)
        self.resumed_s = time.perf_counter()
        self._begin_segment(step)

    def _begin_segment(self, step: int) -> None:
        self._segment_s = time.perf_counter()
        self._first_step = step
        self._losses: list[float] = []
