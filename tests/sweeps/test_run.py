"""The main job, end to end: real Ray, Optuna, NF4 and W&B on the bundled model."""

import csv
import json
import re
import shutil
import subprocess
import sys

import pytest
import small_sweep
import torch
from conftest import Finished
from peft import PeftModel
from safetensors.torch import load_file

from sweeps import results
from sweeps.config import from_json
from sweeps.events import replay
from trainables.base_model import load_base, load_tokenizer
from trainables.config import Metric, TaskOptions
from trainables.evaluate import evaluate, fixed_slice
from trainables.tasks import TASKS


def test_sweep_runs_every_trial_and_all_its_files_agree(finished: Finished) -> None:
    assert finished.code == 0, finished.output
    histories = small_sweep.check_whole(finished.folder, finished.name, finished.num_trials)
    statuses = {history.status for history in histories}
    assert {"completed", "stopped"} <= statuses
    for history in histories:
        steps = [report.step for report in history.reports]
        assert steps == [1, 3, 9][: len(steps)]
        assert (history.status == "completed") == (steps[-1] == 9)


def test_summary_names_the_winner_beside_the_untuned_base(finished: Finished) -> None:
    best = results.best(_rows(finished))
    assert best is not None
    assert f"best: {best.trial_id}" in finished.output
    assert "test, untuned base" in finished.output
    assert "Traceback" not in finished.output


def test_start_points_are_tried_first(finished: Finished) -> None:
    first, second = replay(small_sweep.events_of(finished.folder))[:2]
    assert (first.params.lora_rank, first.params.lora_alpha, first.params.use_rslora) == (
        64, 32.0, True,
    )  # fmt: skip
    assert (second.params.lora_rank, second.params.lora_alpha, second.params.use_rslora) == (
        16, 32.0, False,
    )  # fmt: skip


def test_best_adapter_gives_the_score_that_its_row_claims(finished: Finished) -> None:
    config = from_json(json.loads((finished.folder / "sweep.json").read_text())["config"])
    settings = config.settings
    splits = TASKS["samsum"](TaskOptions()).load(settings.data)
    rows = fixed_slice(splits.validation, settings.eval_rows)
    torch.set_num_threads(1)
    base = load_base(settings.model, settings.compute_dtype)
    model = PeftModel.from_pretrained(base, str(finished.folder / "best"))
    tokenizer = load_tokenizer(str(finished.folder / "best"))
    again = evaluate(model, tokenizer, rows, splits.scoring, settings)
    best = results.best(_rows(finished))
    assert best is not None and best.last is not None
    assert again.keys() == best.last.metrics.keys()
    loss = best.last.metrics["eval_loss"]
    assert again["eval_loss"] == pytest.approx(loss, rel=small_sweep.LOSS_TOLERANCE)
    rouge = best.last.metrics["rougeLsum"]
    assert again["rougeLsum"] == pytest.approx(rouge, abs=small_sweep.ROUGE_TOLERANCE)


def test_ended_trials_keep_their_adapter_but_no_optimizer(finished: Finished) -> None:
    for row in _rows(finished):
        assert row.last is not None
        checkpoint = finished.folder / "checkpoints" / row.trial_id / f"checkpoint-{row.steps}"
        assert checkpoint == row.last.checkpoint
        assert load_file(checkpoint / "adapter_model.safetensors")
        assert not list(checkpoint.glob("optimizer*"))


def test_trial_alone_gives_what_it_gave_in_the_sweep(finished: Finished) -> None:
    history = replay(small_sweep.events_of(finished.folder))[0]
    params = history.params
    command = [
        sys.executable, "-m", "sweeps.trial", "samsum", *small_sweep.FLAGS,
        "--lora-rank", str(params.lora_rank), "--lora-alpha", str(params.lora_alpha),
        "--lora-dropout", str(params.lora_dropout),
        "--use-rslora" if params.use_rslora else "--no-use-rslora",
        "--learning-rate", str(params.learning_rate),
        "--runs-dir", str(finished.runs_dir), "--name", "alone",
    ]  # fmt: skip
    ended = subprocess.run(
        command, cwd=small_sweep.PROJECT, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    losses = [float(x) for x in re.findall(r"train_loss ([\d.]+)", ended.stdout)]
    scores = [float(x) for x in re.findall(r"rougeLsum ([\d.]+)", ended.stdout)]
    num_reports = len(history.reports)
    assert losses[:num_reports] == pytest.approx(
        [r.train_loss for r in history.reports], rel=small_sweep.LOSS_TOLERANCE
    )
    assert scores[:num_reports] == pytest.approx(
        [r.metrics["rougeLsum"] for r in history.reports], abs=small_sweep.ROUGE_TOLERANCE
    )


def test_resuming_a_finished_sweep_runs_nothing_also_in_a_renamed_folder(
    finished: Finished,
) -> None:
    folder = finished.runs_dir / "renamed"
    shutil.copytree(finished.folder, folder)
    before = (folder / "trials.csv").read_text()
    code, output = small_sweep.resume(finished.runs_dir, "renamed")
    assert code == 0, output
    assert (folder / "trials.csv").read_text() == before
    assert small_sweep.count(small_sweep.events_of(folder), "final_scores") == 1


def test_finished_sweep_can_be_given_more_trials(finished: Finished) -> None:
    shutil.copytree(finished.folder, finished.runs_dir / "longer")
    code, output = small_sweep.resume(finished.runs_dir, "longer", "--num-trials", "7")
    assert code == 0, output
    histories = small_sweep.check_whole(finished.runs_dir / "longer", finished.name, 7)
    earlier = replay(small_sweep.events_of(finished.folder))
    assert histories[:6] == earlier


def _rows(finished: Finished) -> list[results.TrialRow]:
    histories = replay(small_sweep.events_of(finished.folder))
    return results.rows(histories, Metric(name="rougeLsum"))


def test_csv_has_the_documented_columns(finished: Finished) -> None:
    with (finished.folder / "trials.csv").open() as file:
        names = csv.DictReader(file).fieldnames
    assert names is not None
    documented = {
        "trial_id", "status", "reason", "lora_rank", "lora_alpha", "lora_dropout",
        "learning_rate", "steps", "metric", "value", "gpu_seconds", "tokens", "peak_gib",
    }  # fmt: skip
    assert documented <= set(names)
