"""The one look at the test split."""

from pathlib import Path

import pytest

from trainables.config import Hyperparameters, TrainingSettings, TrialConfig, TrialReport
from trainables.final import score
from trainables.packing.capacity import Capacity
from trainables.solo import train

CAPACITY = Capacity(
    num_slots=2, max_rank=16, max_tokens=1000, eval_tokens=1000, is_dequantised=False,
    predicted_gib=1.0,
)  # fmt: skip


def test_adapter_is_scored_on_test_beside_the_untuned_base(
    settings: TrainingSettings, params: Hyperparameters, tmp_path: Path
) -> None:
    reports: list[TrialReport] = []
    config = TrialConfig(trial_id="t0001", params=params, settings=settings, folder=tmp_path)
    train(config, reports.append)
    scores = score(settings, reports[-1].checkpoint, capacity=None)
    assert set(scores) == {"validation_base", "test_base", "test"}
    assert set(scores["test"]) == set(reports[-1].metrics)
    assert scores["test"]["eval_loss"] < scores["test_base"]["eval_loss"]
    assert scores["validation_base"]["eval_loss"] > reports[-1].metrics["eval_loss"]
    packed = score(settings, reports[-1].checkpoint, capacity=CAPACITY)
    assert packed.keys() == scores.keys()
    for name, expected in scores.items():
        assert packed[name] == pytest.approx(expected, rel=1e-5)
