"""Mixtures of experts in the solo engine: what is trained, scored, written and loaded again."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tests.trainables.expert_model import EXPERT_KINDS, join_experts, save_experts
from tests.trainables.solo.small_prompts import check_labels, validation_prompts
from trainables.config import Hyperparameters, TrainingSettings, TrialConfig, TrialReport
from trainables.data.prepared_rows import read_rows
from trainables.data.rows import select_rung_rows
from trainables.models.base_model import load_base, load_tokenizer
from trainables.models.layer_kinds import ATTENTION, DENSE_MLP
from trainables.solo import trainer
from trainables.solo.evaluate import evaluate, generate

QKVO = {name for group in ATTENTION.mixer_groups for name in group}
MLP = {name for group in DENSE_MLP.groups for name in group}
DELTA = {"in_proj_qkv", "in_proj_z", "out_proj"}
EXPECTED = {"qwen2_moe": QKVO | MLP, "qwen3_moe": QKVO, "qwen3_5_moe": QKVO | MLP | DELTA}
PARAMS = Hyperparameters(lora_rank=4, lora_alpha=8, lora_dropout=0.3, learning_rate=2e-2)


@pytest.fixture(scope="module", params=EXPERT_KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """A type with experts."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def folder(
    kind: str, tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast
) -> str:
    """A model of it."""
    return save_experts(tmp_path_factory.mktemp(kind), tokenizer, kind)


@pytest.fixture(scope="module")
def base(folder: str) -> PreTrainedModel:
    """It, in NF4 but for its experts."""
    return load_base(folder, "float32")


@pytest.fixture(scope="module")
def prompts(tokenizer: PreTrainedTokenizerFast, rows_dir: Path) -> list[list[int]]:
    """Validation prompts of several lengths."""
    return validation_prompts(tokenizer, rows_dir)[:6]


def train(settings: TrainingSettings, params: Hyperparameters, folder: Path) -> list[TrialReport]:
    """A trial's reports."""
    reports: list[TrialReport] = []
    trial = TrialConfig(trial_id="t", params=params, settings=settings, folder=folder)
    trainer.train(trial, reports.append)
    return reports


@pytest.mark.slow
def test_trial_trains_all_but_experts_and_its_adapter_loads_in_plain_peft(
    kind: str,
    folder: str,
    settings: TrainingSettings,
    tmp_path: Path,
) -> None:
    settings = dataclasses.replace(settings, model=folder, max_steps=3, rungs=(1, 3), eval_rows=4)
    reports = train(settings, PARAMS, tmp_path / "t")
    assert [report.step for report in reports] == [1, 3]
    assert reports[1].train_loss < reports[0].train_loss
    other = train(settings, dataclasses.replace(PARAMS, lora_dropout=0.0), tmp_path / "other")
    assert other[1].train_loss != reports[1].train_loss

    adapter = reports[1].checkpoint
    weights = load_file(adapter / "adapter_model.safetensors")
    assert all(bool(w.any()) for name, w in weights.items() if "lora_B" in name)
    assert {name.split(".")[-3] for name in weights} == EXPECTED[kind]
    assert not any(".experts." in name or ".gate." in name for name in weights)
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert not config["target_parameters"]

    again = PeftModel.from_pretrained(load_base(folder, "float32"), str(adapter))
    loaded = {n for n, _ in again.named_parameters() if "lora_" in n}
    assert {name.replace(".default", "") for name in loaded} == set(weights)
    splits = read_rows(settings.rows_dir)
    rows = select_rung_rows(splits.validation, settings, 3)
    scored = evaluate(again, load_tokenizer(folder), rows, splits.scoring, settings)
    assert scored.metrics == pytest.approx(reports[1].metrics, rel=1e-6)


def test_experts_and_routers_are_frozen_and_in_the_compute_type(base: PreTrainedModel) -> None:
    model = trainer.add_adapter(base, PARAMS, 0)
    frozen = {n: p for n, p in model.named_parameters() if ".experts." in n or ".gate." in n}
    assert frozen
    assert {(p.dtype, p.requires_grad) for p in frozen.values()} == {(torch.float32, False)}
    model.unload()


def test_padding_moves_no_answer(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: list[list[int]]
) -> None:
    alone = generate(base, tokenizer, prompts, 1, 6)
    assert generate(base, tokenizer, prompts, 4, 6) == alone
    assert any(alone)


@pytest.mark.parametrize("window", [None, 8])
def test_labels_are_as_likely_as_each_read_alone(
    kind: str,
    window: int | None,
    tokenizer: PreTrainedTokenizerFast,
    prompts: list[list[int]],
    tmp_path: Path,
) -> None:
    if window is not None and kind == "qwen3_5_moe":
        return  # it has no sliding attention
    sliding = {"use_sliding_window": window is not None, "sliding_window": window}
    base = load_base(save_experts(tmp_path, tokenizer, kind, **sliding), "float32")
    check_labels(base, tokenizer, prompts, 4)


def test_experts_that_lie_together_in_a_file_are_the_same(
    kind: str, base: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    folder = save_experts(tmp_path, tokenizer, kind)
    join_experts(tmp_path)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        logits = load_base(folder, "float32")(input_ids=ids).logits
        torch.testing.assert_close(logits, base(input_ids=ids).logits, rtol=0, atol=0)
