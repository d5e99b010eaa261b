"""What a trial's reports say about the steps since its last one."""

import dataclasses

import pytest

from tests.trainables.packing.small_packs import trial_of
from trainables.config import Hyperparameters, TrainingSettings
from trainables.data.batches import Batches
from trainables.data.tokens import Example
from trainables.packing.compute.slot import StepResult
from trainables.packing.service.leases import Lease
from trainables.packing.service.tenant import Tenant

STEP = StepResult(
    slot=1, trial_id="it", step=0, loss=0.0, grad_norm=1.0, learning_rate=0.0, failed=None
)


def test_each_report_counts_from_the_last(
    settings: TrainingSettings, params: Hyperparameters, examples: list[Example]
) -> None:
    trial = trial_of("it", params, settings)
    batches = Batches(examples, settings)
    tenant = Tenant(
        lease=Lease(1, trial, heard_s=0.0, waits_since_s=0.0),
        slot=1,
        batches=batches,
        step=0,
        reported_step=0,
        seconds=100.0,
    )
    for step, due in ((1, False), (2, True), (3, False), (4, True)):
        done = dataclasses.replace(STEP, step=step, loss=float(step), learning_rate=step / 1000)
        tenant.add(done, seconds=step * 10.0)
        assert tenant.is_at_rung == due
        if due:
            report = tenant.report({"eval_loss": 1.0}, num_eval_rows=7, evaluation_s=5.0)
            assert not tenant.is_at_rung
            assert report.train_loss == step - 0.5
            assert report.learning_rate == step / 1000
            trained_s = 10.0 * (step + step - 1)
            new_tokens = batches.tokens(step) - batches.tokens(step - 2)
            assert report.tokens_per_s == pytest.approx(new_tokens / trained_s)
            assert report.tokens == batches.tokens(step)
            assert report.epoch == batches.epoch(step)
            assert report.eval_rows == 7
            assert report.seconds == {2: 135.0, 4: 210.0}[step]
            assert report.checkpoint == trial.folder / f"checkpoint-{step}"
    assert tenant.is_at_end
