"""The solo trainer: its loss, its micro-batches, and what it does when the memory is full."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from trainables.config import (
    Hyperparameters,
    TrainingSettings,
    TrialConfig,
    TrialReport,
)
from trainables.data.batches import Batches
from trainables.data.prepared_rows import read_rows
from trainables.data.tokens import encode_training_rows
from trainables.models.base_model import load_base
from trainables.solo.trainer import add_adapter, train


def run(
    settings: TrainingSettings,
    params: Hyperparameters,
    folder: Path,
    on_report: Callable[[TrialReport], None] = lambda report: None,
) -> list[TrialReport]:
    """Train and collect the reports."""
    reports: list[TrialReport] = []

    def report(made: TrialReport) -> None:
        reports.append(made)
        on_report(made)

    config = TrialConfig(trial_id="t0001", params=params, settings=settings, folder=folder)
    train(config, report)
    return reports


def test_micro_batches_give_the_same_losses_as_whole_batches(
    settings: TrainingSettings, params: Hyperparameters, tmp_path: Path
) -> None:
    params = dataclasses.replace(params, lora_dropout=0.0)
    whole = run(settings, params, tmp_path / "whole")
    halves = run(dataclasses.replace(settings, micro_batch_size=1), params, tmp_path / "halves")
    for one, other in zip(whole, halves, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=1e-5)


def test_loss_is_that_of_a_plain_loop_over_target_tokens(
    settings: TrainingSettings,
    params: Hyperparameters,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    params = dataclasses.replace(params, lora_dropout=0.0)
    settings = dataclasses.replace(settings, rungs=(1, 2, 3, 4), weight_decay=0.1)
    losses = [report.train_loss for report in run(settings, params, tmp_path)]
    assert losses == pytest.approx(plain_losses(settings, params, tokenizer), rel=1e-5)


def plain_losses(
    settings: TrainingSettings, params: Hyperparameters, tokenizer: PreTrainedTokenizerFast
) -> list[float]:
    """The loss of each step, from a loop of torch and PEFT alone, one row at a time."""
    rows = read_rows(settings.rows_dir).train
    examples = encode_training_rows(tokenizer, rows, 192, 8)
    batches = Batches(examples, settings)
    base = load_base(settings.model, "float32")
    model = add_adapter(base, params, settings.seed)
    adapter = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert {parameter.dtype for parameter in adapter} == {torch.float32}
    optimizer = torch.optim.AdamW(adapter, weight_decay=settings.weight_decay)
    losses = []
    for step in range(1, settings.max_steps + 1):
        rate = (0.0, 1.0, 2 / 3, 1 / 3)[step - 1]
        optimizer.param_groups[0]["lr"] = params.learning_rate * rate
        picked = batches.get_step_rows(step)
        num_labels = sum(len(example.target_ids) for example in picked)
        loss = torch.zeros(())
        for example in picked:
            logits = model(input_ids=torch.tensor([example.input_ids])).logits[0, :-1]
            labels = torch.tensor(example.labels[1:])
            loss = loss + torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
        (loss / num_labels).backward()
        torch.nn.utils.clip_grad_norm_(adapter, settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item() / num_labels)
    return losses


def test_out_of_memory_goes_on_from_the_last_checkpoint(
    settings: TrainingSettings, params: Hyperparameters, tmp_path: Path
) -> None:
    params = dataclasses.replace(params, lora_dropout=0.0)
    whole = run(settings, params, tmp_path / "whole")
    is_first = iter([True])

    def fill_memory(report: TrialReport) -> None:
        if next(is_first, False):
            raise torch.OutOfMemoryError("CUDA out of memory")

    reports = run(settings, params, tmp_path / "full", fill_memory)
    assert [report.step for report in reports] == [2, 4]
    assert reports[1].train_loss == pytest.approx(whole[1].train_loss, rel=1e-5)
