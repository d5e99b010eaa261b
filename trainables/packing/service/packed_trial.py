"""A trial in a pack: its claim on a slot, what it is yet to be told, and its progress. No torch."""

import math
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from trainables.checkpoint import (
    PACK_STATE_NAMES,
    Progress,
    find_resume_point,
    get_checkpoint_folder,
    prune_to_adapter,
)
from trainables.checkpoint_storage import fetch_last
from trainables.config import TrialConfig, TrialReport
from trainables.packing.service.events import Event

if TYPE_CHECKING:  # loads torch, which a registry of trials does without
    from trainables.data.batches import Batches
    from trainables.packing.compute.slot import StepResult


@dataclass(eq=False)
class PackedTrial:
    """A trial that waits for a slot of a pack, or trains in one."""

    config: TrialConfig
    lease: int
    """Number of its claim; leases rise in order of arrival."""

    # The rest up to folder_lock is the registry's, and guarded by its lock.
    last_heard_s: float
    """When the trial's process was last heard of (time.monotonic)."""
    waiting_since_s: float
    is_open: bool = True
    """Not left, evicted, replaced or expired."""
    has_ended: bool = False
    """Its last event has happened."""
    events: deque[Event] = field(default_factory=deque)
    """What its process has yet to take."""
    num_listeners: int = 0
    """Calls that wait for its next event."""
    taken_step: int = 0
    """Step of the last report that its process has taken."""
    decided_step: int = 0
    """Step of the last report after which the trial is known to continue."""
    folder_lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while the pack reads or writes the trial's folder."""

    # What follows is the loop's; no other thread reads or writes it without being waited for.
    slot: int | None = None
    last: TrialReport | None = None
    """Its last report of an earlier attempt."""
    progress: Progress | None = None
    """What it had done since, if that was saved."""
    batches: "Batches" = field(init=False)
    """Its way through the rows, once it has a slot."""
    step: int = 0
    """Optimizer steps done."""
    reported_step: int = 0
    """Step of the last report."""
    entered: float = 0.0
    """When it took the slot, in Unix time."""
    seconds: float = 0.0
    """Busy seconds up to the last report, over all attempts."""
    earlier_gpu_s: float = 0.0
    """Share of the GPU's time up to the last report, less what this pack had charged by then."""
    training_s: float = 0.0
    """Seconds of the steps since the last report."""
    losses: list[float] = field(default_factory=list)
    """Losses of the steps since the last report."""
    learning_rate: float = 0.0

    @property
    def trial_id(self) -> str:
        return self.config.trial_id

    @property
    def is_live(self) -> bool:
        """Whether the trial is still to be trained: it has neither gone nor ended."""
        return self.is_open and not self.has_ended

    @property
    def is_decided(self) -> bool:
        """Whether the trial continues after all its reports, or is gone or stopped."""
        return not self.is_live or self.decided_step >= self.reported_step

    @property
    def is_at_rung(self) -> bool:
        """Whether a report is due."""
        return self.step in self.config.settings.rungs and self.step > self.reported_step

    @property
    def has_progress(self) -> bool:
        """Whether there are steps that no checkpoint has."""
        newest = self.progress or self.last
        return self.step > max(self.reported_step, newest.step if newest else 0)

    @property
    def next_rung(self) -> int:
        """The step of its next report."""
        settings = self.config.settings
        return min((r for r in settings.rungs if r > self.step), default=settings.max_steps)

    @property
    def is_at_end(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.config.settings.max_steps

    @property
    def checkpoint(self) -> Path:
        """Where the present step is saved."""
        return get_checkpoint_folder(self.config.folder, self.step)

    def find_resume_point(self) -> None:
        """Look for what the trial resumes from; its folder holds nothing else then.

        Raises:
            TrialFailed: its last report is damaged.
        """
        max_steps = self.config.settings.max_steps
        fetch_last(self.config.storage, self.config.folder)
        self.last, self.progress = find_resume_point(
            self.config.folder, max_steps, PACK_STATE_NAMES
        )
        if self.last is not None and self.last.step >= max_steps:
            prune_to_adapter(self.config.folder)

    def enter_slot(self, slot: int, batches: "Batches", charged_s: float) -> None:
        """Begin in a slot, at step 0 or where the trial was saved.

        Args:
            charged_s: what the pack has charged the trial with so far.
        """
        last, progress = self.last, self.progress
        newest = progress or last
        self.slot = slot
        self.entered = time.time()
        self.batches = batches
        self.reported_step = last.step if last else 0
        self.step = newest.step if newest else 0
        self.seconds = last.seconds if last else 0.0
        self.earlier_gpu_s = (newest.gpu_seconds if newest else 0.0) - charged_s
        self.training_s = progress.training_s if progress else 0.0
        self.losses = list(progress.losses) if progress else []
        self.learning_rate = newest.learning_rate if newest else 0.0

    def add_step(self, result: "StepResult", seconds: float) -> None:
        """Count a step that took the pack so many seconds."""
        self.step = result.step
        self.training_s += seconds
        self.losses.append(result.loss)
        self.learning_rate = result.learning_rate

    def make_progress(self, charged_s: float) -> Progress:
        """What was done since the last report.

        Args:
            charged_s: what the pack has charged the trial with so far.
        """
        return Progress(
            step=self.step,
            losses=self.losses,
            learning_rate=self.learning_rate,
            training_s=self.training_s,
            gpu_seconds=self.earlier_gpu_s + charged_s,
            checkpoint=self.checkpoint,
        )

    def make_report(
        self,
        metrics: dict[str, float],
        num_eval_rows: int,
        *,
        evaluation_s: float,
        charged_s: float,
        peak_gib: float,
        pack: str,
        device: str,
    ) -> TrialReport:
        """The report of the present step, from which the next one's figures begin anew.

        Args:
            evaluation_s: what scoring and saving took.
            charged_s: what the pack has charged the trial with so far.
        """
        self.seconds += self.training_s + evaluation_s
        tokens = self.batches.count_tokens(self.step)
        new_tokens = tokens - self.batches.count_tokens(self.reported_step)
        report = TrialReport(
            trial_id=self.trial_id,
            step=self.step,
            metrics=metrics,
            train_loss=math.fsum(self.losses) / len(self.losses),
            learning_rate=self.learning_rate,
            epoch=self.batches.compute_epoch(self.step),
            tokens=tokens,
            tokens_per_s=new_tokens / self.training_s,
            seconds=self.seconds,
            peak_gib=peak_gib,
            checkpoint=self.checkpoint,
            eval_rows=num_eval_rows,
            gpu_seconds=self.earlier_gpu_s + charged_s,
            pack=pack,
            slot=self.slot,
            entered=self.entered,
            device=device,
        )
        self.reported_step = self.step
        self.training_s = 0.0
        self.losses = []
        return report
