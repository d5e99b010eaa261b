"""What a solo trial does at each rung: checkpoint, evaluate, mark as complete, report."""

import math
import time
from collections.abc import Callable, Sequence

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trainables.checkpoint import checkpoint_folder, keep_last, write_report
from trainables.config import TrialConfig, TrialReport
from trainables.data.batches import Batches
from trainables.data.rows import Row
from trainables.errors import TrialFailed
from trainables.metrics.eval_result import EvalResult, write_answers
from trainables.models.memory import peak_gib


class RungReportCallback(TrainerCallback):  # type: ignore[misc]
    """Watches every step of Trainer and reports at the rungs.

    Args:
        config: the trial.
        batches: its training rows.
        evaluate: scores the model as it stands, on the rows of a report at this step.
        eval_rows: these rows.
        report: receives each report.
        seconds: busy seconds of earlier attempts.
        started_s: time.perf_counter() at the start of this attempt.
    """

    def __init__(
        self,
        config: TrialConfig,
        batches: Batches,
        evaluate: Callable[[int], EvalResult],
        eval_rows: Callable[[int], Sequence[Row]],
        report: Callable[[TrialReport], None],
        seconds: float,
        started_s: float,
    ) -> None:
        self._config = config
        self._batches = batches
        self._evaluate = evaluate
        self._eval_rows = eval_rows
        self._report = report
        self._seconds = seconds
        self._resumed_s = started_s
        self._segment_s = started_s
        self._losses: list[float] = []
        self._first_step = 0
        self._learning_rate = 0.0

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Start the clock of the training speed."""
        self._begin_segment(state.global_step)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Ask Trainer for a checkpoint at a rung."""
        control.should_save = state.global_step in self._config.settings.rungs

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Take note of a step's loss.

        Raises:
            TrialFailed: it or the gradient's norm is not finite.
        """
        if logs is None or "loss" not in logs:
            return
        for name, key in (("loss", "loss"), ("gradient", "grad_norm")):
            if not math.isfinite(logs[key]):
                raise TrialFailed(f"non-finite {name} at step {state.global_step}")
        self._losses.append(logs["loss"])
        self._learning_rate = logs["learning_rate"]

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Evaluate, complete the checkpoint that Trainer has just written, and report."""
        step = state.global_step
        training_s = time.perf_counter() - self._segment_s
        scored = self._evaluate(step)
        self._seconds += time.perf_counter() - self._resumed_s
        report = self._make_report(step, scored.metrics, training_s)
        if step >= self._config.settings.max_steps:
            write_answers(report.checkpoint, self._eval_rows(step), scored)
        write_report(report)
        keep_last(self._config.folder)
        self._report(report)
        self._resumed_s = time.perf_counter()
        self._begin_segment(step)

    def _make_report(self, step: int, metrics: dict[str, float], training_s: float) -> TrialReport:
        tokens = self._batches.tokens(step)
        new_tokens = tokens - self._batches.tokens(self._first_step)
        return TrialReport(
            trial_id=self._config.trial_id,
            step=step,
            metrics=metrics,
            train_loss=math.fsum(self._losses) / len(self._losses),
            learning_rate=self._learning_rate,
            epoch=self._batches.epoch(step),
            tokens=tokens,
            tokens_per_s=new_tokens / training_s,
            seconds=self._seconds,
            peak_gib=peak_gib(),
            checkpoint=checkpoint_folder(self._config.folder, step),
            eval_rows=len(self._eval_rows(step)),
        )

    def _begin_segment(self, step: int) -> None:
        self._segment_s = time.perf_counter()
        self._first_step = step
        self._losses.clear()
