"""Qwen3.5's hybrid decoder in the solo engine: training, answers, labels."""

import dataclasses
from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tests.trainables.solo.small_prompts import check_labels, validation_prompts
from trainables.config import Hyperparameters, TrainingSettings, TrialConfig, TrialReport
from trainables.models.base_model import load_base
from trainables.models.layer_kinds import ATTENTION, GATED_DELTA_NET, list_linear_layers
from trainables.solo import trainer
from trainables.solo.evaluate import generate


@pytest.fixture(scope="module")
def base(hybrid_dir: str) -> PreTrainedModel:
    """The test-sized hybrid in NF4."""
    return load_base(hybrid_dir, "float32")


@pytest.fixture(scope="module")
def prompts(tokenizer: PreTrainedTokenizerFast, rows_dir: Path) -> list[list[int]]:
    """Validation prompts of several lengths."""
    return validation_prompts(tokenizer, rows_dir)


def test_padding_moves_neither_convolution_nor_state(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: list[list[int]]
) -> None:
    alone = generate(base, tokenizer, prompts, 1, 6)
    assert generate(base, tokenizer, prompts, 5, 6) == alone
    assert any(alone)


def test_labels_are_as_likely_as_each_read_alone(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: list[list[int]]
) -> None:
    check_labels(base, tokenizer, prompts, 5)


def test_trial_trains_every_target_of_every_kind_of_layer(
    hybrid_dir: str, settings: TrainingSettings, tmp_path: Path
) -> None:
    reports: list[TrialReport] = []
    settings = dataclasses.replace(settings, model=hybrid_dir, compute_dtype="float32")
    params = Hyperparameters(lora_rank=4, lora_alpha=8.0, learning_rate=5e-3, lora_dropout=0.1)
    trial = TrialConfig(trial_id="t", params=params, settings=settings, folder=tmp_path / "t")
    trainer.train(trial, reports.append)
    assert [report.step for report in reports] == [2, 4]
    assert reports[1].train_loss < reports[0].train_loss
    (weights,) = reports[1].checkpoint.rglob("adapter_model.safetensors")
    lora_b = {name: w for name, w in load_file(weights).items() if "lora_B" in name}
    adapted = {name.split(".")[-3] for name in lora_b}
    assert adapted == set(list_linear_layers((GATED_DELTA_NET, ATTENTION))) - {
        "in_proj_a",
        "in_proj_b",
    }
    assert all(bool(weight.any()) for weight in lora_b.values())
