"""What a trial's reports say about the steps since its last one."""

import dataclasses
import math

import pytest

from tests.trainables.packing.small_packs import trial_of
from trainables.config import Hyperparameters, TrainingSettings
from trainables.data.batches import Batches
from trainables.data.tokens import Example
from trainables.packing.compute.slot import StepResult
from trainables.packing.service.events import Reported
from trainables.packing.service.registry import TrialRegistry

STEP = StepResult(
    slot=1, trial_id="it", step=0, loss=0.0, grad_norm=1.0, learning_rate=0.0, failed=None
)


def test_each_report_counts_from_the_last(
    settings: TrainingSettings, params: Hyperparameters, examples: list[Example]
) -> None:
    config = trial_of("it", params, settings)
    registry = TrialRegistry(2, math.inf, math.inf)
    registry.join(config)
    (trial,) = registry.list_waiting()
    batches = Batches(examples, settings)
    trial.enter_slot(1, batches, charged_s=0.0)
    for step, due in ((1, False), (2, True), (3, False), (4, True)):
        done = dataclasses.replace(STEP, step=step, loss=float(step), learning_rate=step / 1000)
        trial.add_step(done, seconds=step * 10.0)
        assert trial.is_at_rung == due
        if due:
            report = trial.make_report(
                {"eval_loss": 1.0},
                num_eval_rows=7,
                evaluation_s=5.0,
                charged_s=step * 3.0,
                peak_gib=2.5,
                pack="p",
                device="cpu",
            )
            assert not trial.is_at_rung
            registry.post_event(trial, Reported(report))
            assert not trial.is_at_rung
            assert report.train_loss == step - 0.5
            assert report.learning_rate == step / 1000
            trained_s = 10.0 * (step + step - 1)
            new_tokens = batches.count_tokens(step) - batches.count_tokens(step - 2)
            assert report.tokens_per_s == pytest.approx(new_tokens / trained_s)
            assert report.tokens == batches.count_tokens(step)
            assert report.epoch == batches.compute_epoch(step)
            assert report.eval_rows == 7 and report.peak_gib == 2.5
            assert report.seconds == {2: 35.0, 4: 110.0}[step]
            assert report.gpu_seconds == step * 3.0
            assert report.checkpoint == config.folder / f"checkpoint-{step}"
    assert trial.is_at_end


def test_resumed_trial_counts_from_its_last_report(
    settings: TrainingSettings, params: Hyperparameters, examples: list[Example]
) -> None:
    """What this pack had charged it with before is part of what the report says already."""
    config = trial_of("it", params, settings)
    registry = TrialRegistry(2, math.inf, math.inf)
    registry.join(config)
    (trial,) = registry.list_waiting()
    batches = Batches(examples, settings)
    trial.enter_slot(0, batches, charged_s=0.0)
    for step in (1, 2):
        trial.add_step(dataclasses.replace(STEP, step=step, loss=1.0), seconds=10.0)
    sizes = {"num_eval_rows": 7, "evaluation_s": 5.0, "peak_gib": 0.0, "pack": "p", "device": "cpu"}
    last = trial.last = trial.make_report({}, charged_s=6.0, **sizes)  # type: ignore[arg-type]
    trial.add_step(dataclasses.replace(STEP, step=3, loss=9.0), seconds=10.0)  # is lost
    trial.enter_slot(1, batches, charged_s=8.0)
    assert (trial.slot, trial.step, trial.is_at_rung) == (1, 2, False)
    for step in (3, 4):
        trial.add_step(dataclasses.replace(STEP, step=step, loss=2.0), seconds=1.0)
    report = trial.make_report({}, charged_s=9.0, **sizes)  # type: ignore[arg-type]
    assert report.train_loss == 2.0
    assert report.seconds == last.seconds + 2.0 + 5.0
    assert report.gpu_seconds == last.gpu_seconds + 1.0
    assert (last.slot, report.slot) == (0, 1) and last.entered < report.entered
