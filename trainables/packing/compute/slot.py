"""One trial in its slot of a pack: what it trains next, and what its last step gave.

Everything here follows from the trial alone; nothing depends on the other slots.
"""

import math
from dataclasses import dataclass

from trainables.config import Hyperparameters, Schedule, TrialConfig
from trainables.data.batches import Batches
from trainables.packing.compute.optimizer import SlotUpdate
from trainables.packing.compute.packed_batch import MicroBatch, split_by_size


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """One optimizer step of one slot."""

    slot: int
    trial_id: str
    step: int
    """Optimizer step that was done, counted from 1; not done if failed."""
    loss: float
    """Mean loss a labelled token of the effective batch."""
    grad_norm: float
    """L2 norm of the gradient before clipping."""
    learning_rate: float
    failed: str | None
    """Why the trial cannot go on; its weights are those before the step."""


@dataclass
class Slot:
    """A trial in its slot."""

    trial: TrialConfig
    batches: Batches
    step: int
    """Optimizer steps done, or handed to the device."""
    has_failed: bool = False

    @property
    def is_training(self) -> bool:
        """Whether it has a step to make."""
        return not self.has_failed and self.step < self.trial.settings.max_steps

    def split_step(self, index: int, max_tokens: int) -> list[MicroBatch]:
        """The rows of its next step, in as few micro-batches as max_tokens allows.

        How they are cut follows from the trial alone, so that its sums round alike beside any
        neighbours.
        """
        step = self.step + 1
        rows = self.batches.get_step_rows(step)
        seed, lora_dropout = self.trial.settings.seed, self.trial.params.lora_dropout
        label_weight = 1.0 / sum(len(row.label_positions) for row in rows)
        micro_batches: list[MicroBatch] = []
        first = 0
        for part in split_by_size(rows, [len(row.ids) for row in rows], max_tokens):
            micro_batches.append(
                MicroBatch(index, part, first, seed, step, lora_dropout, label_weight)
            )
            first += len(part)
        return micro_batches

    def make_update(self) -> SlotUpdate:
        """Its next optimizer step."""
        settings, step = self.trial.settings, self.step + 1
        peak, warmup = self.trial.params.learning_rate, settings.warmup_steps
        return SlotUpdate(
            step=step,
            learning_rate=compute_learning_rate(
                peak, settings.schedule, step, warmup, settings.max_steps
            ),
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
        )

    def make_result(
        self, number: int, update: SlotUpdate, loss: float, grad_norm: float
    ) -> StepResult:
        """What a step gave; the trial has failed if that is not finite, and it stands before it."""
        faults = [
            f"non-finite {name} at step {update.step}"
            for name, value in (("loss", loss), ("gradient", grad_norm))
            if not math.isfinite(value)
        ]
        if faults:
            self.has_failed = True
            self.step = update.step - 1
        return StepResult(
            slot=number,
            trial_id=self.trial.trial_id,
            step=update.step,
            loss=loss,
            grad_norm=grad_norm,
            learning_rate=update.learning_rate,
            failed=faults[0] if faults else None,
        )


def compute_scaling(params: Hyperparameters) -> float:
    """PEFT's scaling of a LoRA product; rsLoRA's is arXiv 2312.03732."""
    root = math.sqrt(params.lora_rank) if params.use_rslora else params.lora_rank
    return params.lora_alpha / root


def compute_learning_rate(
    peak: float, schedule: Schedule, step: int, warmup_steps: int, max_steps: int
) -> float:
    """The rate of the step-th optimizer step, counted from 1.

    transformers.optimization: get_linear_schedule_with_warmup, get_cosine_schedule_with_warmup;
    the first step uses their factor at 0.
    """
    done = step - 1
    if done < warmup_steps:
        return peak * (done / max(1, warmup_steps))
    decay_steps = max(1, max_steps - warmup_steps)
    if schedule == "linear":
        return peak * max(0.0, (max_steps - done) / decay_steps)
    progress = (done - warmup_steps) / decay_steps
    return peak * max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
