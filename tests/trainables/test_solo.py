"""The solo trainer: reports, resuming, stopping, failing."""

import dataclasses
import gc
import math
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import PeftModel
from transformers import PreTrainedTokenizerFast

from trainables.base_model import load_base
from trainables.batches import Batches
from trainables.checkpoint import (
    REPORT_NAME,
    STATE_NAMES,
    complete_checkpoints,
    last_report,
    prune_to_adapter,
)
from trainables.config import Hyperparameters, TrainingSettings, TrialConfig, TrialReport
from trainables.errors import TrialFailed
from trainables.examples import encode_training_rows
from trainables.solo import new_adapter, train
from trainables.tasks import TASKS

Numbers = list[tuple[int, float, dict[str, float]]]


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


def numbers(reports: list[TrialReport]) -> Numbers:
    """What must not depend on the process, the attempt or the clock."""
    return [(report.step, report.train_loss, report.metrics) for report in reports]


def stop_at(step: int) -> Callable[[TrialReport], None]:
    """A report function that stops the trial at a step."""

    def stop(report: TrialReport) -> None:
        if report.step == step:
            raise SystemExit(0)

    return stop


def test_trial_reports_at_its_rungs_and_leaves_an_adapter_that_peft_loads(
    settings: TrainingSettings, params: Hyperparameters, tmp_path: Path
) -> None:
    reports = run(settings, params, tmp_path)
    assert [report.step for report in reports] == [2, 4]
    assert reports[1].checkpoint == tmp_path / "checkpoint-4"
    assert reports[1].train_loss < reports[0].train_loss
    assert reports[0].learning_rate == pytest.approx(5e-3)
    assert reports[1].learning_rate == pytest.approx(5e-3 / 3)
    assert reports[1].epoch == pytest.approx(16 / 40)
    assert reports[1].tokens > reports[0].tokens > 0
    assert reports[1].seconds > reports[0].seconds > 0
    assert reports[1].peak_gib > 0
    names = {path.name for path in reports[1].checkpoint.iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", REPORT_NAME}
    base = load_base(settings.model, settings.compute_dtype)
    PeftModel.from_pretrained(base, str(reports[1].checkpoint))


def test_resumed_trial_equals_an_undisturbed_one(
    settings: TrainingSettings, params: Hyperparameters, tmp_path: Path
) -> None:
    whole = run(settings, params, tmp_path / "whole")
    with pytest.raises(SystemExit):
        run(settings, params, tmp_path / "cut", stop_at(2))
    sent = last_report(tmp_path / "cut")
    (tmp_path / "cut" / "checkpoint-3").mkdir()
    resumed = run(settings, params, tmp_path / "cut")
    assert numbers(resumed) == numbers(whole)
    assert resumed[0] == sent
    assert resumed[1].seconds > resumed[0].seconds
    assert resumed[1].tokens == whole[1].tokens


def test_finished_trial_sends_its_report_again_and_trains_no_more(
    settings: TrainingSettings, params: Hyperparameters, tmp_path: Path
) -> None:
    first = run(settings, params, tmp_path)
    assert run(settings, params, tmp_path) == first[-1:]


def test_stopped_trial_keeps_the_state_to_go_on_from(
    settings: TrainingSettings, params: Hyperparameters, tmp_path: Path
) -> None:
    settings = dataclasses.replace(settings, rungs=(1, 2, 3, 4))
    with pytest.raises(SystemExit):
        run(settings, params, tmp_path, stop_at(3))
    kept = complete_checkpoints(tmp_path)
    assert [path.name for path in kept] == ["checkpoint-2", "checkpoint-3"]
    assert all((path / name).is_file() for path in kept for name in STATE_NAMES)


def test_stopped_trial_leaves_no_model_in_memory(
    settings: TrainingSettings, params: Hyperparameters, tmp_path: Path
) -> None:
    before = num_layers()
    alive: list[int] = []

    def stop(report: TrialReport) -> None:
        alive.append(num_layers())
        raise SystemExit(0)

    with pytest.raises(SystemExit):
        run(settings, params, tmp_path, stop)
    assert alive[0] > before
    assert num_layers() == before


def num_layers() -> int:
    """Quantised layers that are alive in this process."""
    gc.collect()
    return sum(isinstance(found, Linear4bit) for found in gc.get_objects())


def test_pruned_trial_starts_anew(
    settings: TrainingSettings, params: Hyperparameters, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit):
        run(settings, params, tmp_path, stop_at(2))
    prune_to_adapter(tmp_path)
    assert [report.step for report in run(settings, params, tmp_path)] == [2, 4]


def test_trial_does_not_depend_on_what_its_process_did_before(
    settings: TrainingSettings, params: Hyperparameters, tmp_path: Path
) -> None:
    first = numbers(run(settings, params, tmp_path / "first"))
    other = dataclasses.replace(params, lora_rank=2, learning_rate=1e-4)
    bf16 = dataclasses.replace(settings, compute_dtype="bfloat16", seed=9)
    assert numbers(run(bf16, other, tmp_path / "between")) != first
    assert numbers(run(settings, params, tmp_path / "second")) == first
    assert numbers_of_a_fresh_process(settings, params, tmp_path / "fresh") == first


def numbers_of_a_fresh_process(
    settings: TrainingSettings, params: Hyperparameters, folder: Path
) -> Numbers:
    """The same trial, trained by a process that has done nothing else."""
    config = TrialConfig(trial_id="t0001", params=params, settings=settings, folder=folder)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(train_and_collect, config).result()


def train_and_collect(config: TrialConfig) -> Numbers:
    """Train, in a process of its own."""
    reports: list[TrialReport] = []
    train(config, reports.append)
    return numbers(reports)


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
    rows = TASKS["samsum"].load(settings.data).train
    examples = encode_training_rows(tokenizer, rows, 192, 8)
    batches = Batches(examples, settings)
    base = load_base(settings.model, "float32")
    model = new_adapter(base, params, settings.seed)
    adapter = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert {parameter.dtype for parameter in adapter} == {torch.float32}
    optimizer = torch.optim.AdamW(adapter, weight_decay=settings.weight_decay)
    losses = []
    for step in range(1, settings.max_steps + 1):
        rate = (0.0, 1.0, 2 / 3, 1 / 3)[step - 1]
        optimizer.param_groups[0]["lr"] = params.learning_rate * rate
        picked = batches.step_rows(step)
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


def test_exploding_trial_fails_with_its_step(
    settings: TrainingSettings, params: Hyperparameters, tmp_path: Path
) -> None:
    params = dataclasses.replace(params, learning_rate=1e30)
    with pytest.raises(TrialFailed, match=r"non-finite (loss|gradient) at step [23]"):
        run(settings, params, tmp_path)


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


def test_report_holds_finite_numbers(
    settings: TrainingSettings, params: Hyperparameters, tmp_path: Path
) -> None:
    settings = dataclasses.replace(settings, max_steps=1, rungs=(1,), schedule="cosine")
    (report,) = run(settings, params, tmp_path)
    names = {"rouge1", "rouge2", "rougeL", "rougeLsum", "eval_loss", "gen_len_tokens"}
    assert set(report.metrics) == names
    assert all(math.isfinite(value) for value in report.metrics.values())
