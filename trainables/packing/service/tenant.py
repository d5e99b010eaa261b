"""A trial while it holds a slot: what its next report will say."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from trainables.checkpoint import checkpoint_folder
from trainables.config import TrialConfig, TrialReport
from trainables.data.batches import Batches
from trainables.models.memory import peak_gib
from trainables.packing.compute.slot import StepResult
from trainables.packing.service.leases import Lease


@dataclass(kw_only=True)
class Tenant:
    """The trial of one slot."""

    lease: Lease
    slot: int
    batches: Batches
    step: int
    """Optimizer steps done."""
    reported_step: int
    """Step of the last report."""
    seconds: float
    """Busy seconds up to the last report, over all attempts."""
    earlier_gpu_s: float = 0.0
    """Share of the GPU's time up to the last report, less what this pack had charged by then."""
    training_s: float = 0.0
    """Seconds of the steps since the last report."""
    losses: list[float] = field(default_factory=list)
    """Of the steps since the last report."""
    learning_rate: float = 0.0

    @property
    def trial(self) -> TrialConfig:
        """What is trained."""
        return self.lease.trial

    @property
    def is_at_rung(self) -> bool:
        """Whether a report is due."""
        return self.step in self.trial.settings.rungs and self.step > self.reported_step

    @property
    def next_rung(self) -> int:
        """The step of its next report."""
        settings = self.trial.settings
        return min((r for r in settings.rungs if r > self.step), default=settings.max_steps)

    @property
    def is_at_end(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.trial.settings.max_steps

    @property
    def checkpoint(self) -> Path:
        """Where the present step is saved."""
        return checkpoint_folder(self.trial.folder, self.step)

    def add(self, result: StepResult, seconds: float) -> None:
        """Count a step that took the pack so many seconds."""
        self.step = result.step
        self.training_s += seconds
        self.losses.append(result.loss)
        self.learning_rate = result.learning_rate

    def report(
        self,
        metrics: dict[str, float],
        num_eval_rows: int,
        evaluation_s: float,
        charged_s: float = 0.0,
    ) -> TrialReport:
        """The report of the present step, from which the next one's figures begin anew.

        Args:
            charged_s: what the pack has charged the trial with so far.
        """
        self.seconds += self.training_s + evaluation_s
        tokens = self.batches.tokens(self.step)
        new_tokens = tokens - self.batches.tokens(self.reported_step)
        made = TrialReport(
            trial_id=self.trial.trial_id,
            step=self.step,
            metrics=metrics,
            train_loss=math.fsum(self.losses) / len(self.losses),
            learning_rate=self.learning_rate,
            epoch=self.batches.epoch(self.step),
            tokens=tokens,
            tokens_per_s=new_tokens / self.training_s,
            seconds=self.seconds,
            peak_gib=peak_gib(),
            checkpoint=self.checkpoint,
            eval_rows=num_eval_rows,
            gpu_seconds=self.earlier_gpu_s + charged_s,
        )
        self.reported_step = self.step
        self.training_s = 0.0
        self.losses = []
        return made
