"""The one look at the test split."""

from pathlib import Path

import pytest

from trainables.config import Hyperparameters, TrainingSettings, TrialConfig, TrialReport
from trainables.final import score
from trainables.solo import train


def test_adapter_is_scored_on_test_beside_the_untuned_base(
    settings: TrainingSettings, params: Hyperparameters, tmp_path: Path
) -> None:
    reports: list[TrialReport] = []
    config = TrialConfig(trial_id="t0001", params=params, settings=settings, folder=tmp_path)
    train(config, reports.append)
    scores = score(settings, reports[-1].checkpoint)
    assert set(scores) == {"validation_base", "test_base", "test"}
    assert set(scores["test"]) == set(reports[-1].metrics)
    assert scores["test"]["eval_loss"] < scores["test_base"]["eval_loss"]
    assert scores["validation_base"]["eval_loss"] > reports[-1].metrics["eval_loss"]
    fewer = score(settings, reports[-1].checkpoint, test_rows=2)
    assert fewer["test"]["eval_loss"] != pytest.approx(scores["test"]["eval_loss"])
    assert fewer["validation_base"] == scores["validation_base"]
