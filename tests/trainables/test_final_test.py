"""The one look at the test split."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainables.config import BaseType, Hyperparameters, TrainingSettings, TrialConfig, TrialReport
from trainables.final_test import score_final_test
from trainables.packing.sizing.capacity import Capacity
from trainables.solo.trainer import train

CAPACITY = Capacity(
    num_slots=2,
    max_rank=16,
    max_tokens=1000,
    eval_tokens=1000,
    is_dequantised=False,
    predicted_gib=1.0,
)


@pytest.mark.parametrize("base_type", ["nf4", "bf16"])
def test_adapters_are_scored_on_test_beside_the_untuned_base(
    settings: TrainingSettings, params: Hyperparameters, base_type: BaseType, tmp_path: Path
) -> None:
    settings = replace(settings, base=base_type)
    reports: list[TrialReport] = []
    config = TrialConfig(trial_id="t0001", params=params, settings=settings, folder=tmp_path)
    train(config, reports.append)
    empty = tmp_path / "empty"
    shutil.copytree(reports[-1].checkpoint, empty)
    weights = load_file(empty / "adapter_model.safetensors")
    save_file(
        {name: torch.zeros_like(one) for name, one in weights.items()},
        empty / "adapter_model.safetensors",
    )
    adapters = {"winner": reports[-1].checkpoint, "empty": empty}
    scores = score_final_test(settings, adapters, capacity=None)
    assert set(scores) == {"validation_base", "test_base", "winner", "empty"}
    found = {name: one.metrics for name, one in scores.items()}
    assert set(found["winner"]) == set(reports[-1].metrics)
    assert found["winner"]["eval_loss"] < found["test_base"]["eval_loss"]
    assert found["empty"] == pytest.approx(found["test_base"], rel=1e-5)
    assert found["validation_base"]["eval_loss"] > reports[-1].metrics["eval_loss"]
    packed = score_final_test(settings, adapters, capacity=CAPACITY)
    assert packed.keys() == scores.keys()
    for name, expected in found.items():
        assert packed[name].metrics == pytest.approx(expected, rel=1e-5)
        assert packed[name].answers == scores[name].answers
