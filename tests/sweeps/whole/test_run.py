"""The main job, end to end: real Ray, Optuna, NF4 and W&B on the bundled model."""

import csv
import json
import re
import shutil
from typing import Any

import optuna
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from sweeps.config import from_json
from sweeps.finals import predictions
from sweeps.finals.baselines import make_baseline, score_baseline
from sweeps.finals.finalists import find_last_finals
from sweeps.records.trial_record import replay, replay_all, replay_finals
from sweeps.search.asha import Asha
from tests.sweeps import commands, small_sweep
from tests.sweeps.small_sweep import Finished
from trainables.config import Metric
from trainables.data.prepared_rows import read_rows
from trainables.data.rows import select_fixed_slice
from trainables.models.base_model import load_base, load_tokenizer
from trainables.models.layer_kinds import resolve_targets
from trainables.models.model_facts import read_model_facts
from trainables.solo.evaluate import evaluate
from trainables.tiny import MODEL_DIR


def test_sweep_runs_every_trial_and_all_its_files_agree(finished: Finished) -> None:
    assert finished.code == 0, finished.output
    histories = small_sweep.check_whole(finished.folder, finished.name, finished.num_trials)
    statuses = {history.status for history in histories}
    assert {"completed", "stopped"} <= statuses
    for history in histories:
        steps = [report.step for report in history.reports]
        assert steps == [1, 3, 9][: len(steps)]
        assert (history.status == "completed") == (steps[-1] == 9)


def test_every_cohort_was_decided_by_its_values_alone(finished: Finished) -> None:
    """The log is enough to decide again: whoever was stopped is whom ASHA stops."""
    events = small_sweep.events_of(finished.folder)
    config = from_json(json.loads((finished.folder / "sweep.json").read_text())["config"])
    metric = Metric(name="rougeLsum")
    asha = Asha(config.rungs, config.reduction_factor, metric)
    searched = {history.trial_id for history in replay(events)}
    assert searched
    made = [e for e in events if e["kind"] == "report" and e["trial_id"] in searched]
    stopped = set()
    while made:
        cohort = {made[0]["trial_id"], *made[0]["cohort"]}
        values = {e["trial_id"]: e["metrics"][metric.name] for e in made[: len(cohort)]}
        assert values.keys() == cohort and len({e["step"] for e in made[: len(cohort)]}) == 1
        decided = asha.decide_who_continues(made[0]["step"], values)
        stopped |= {trial_id for trial_id, goes_on in decided.items() if not goes_on}
        del made[: len(cohort)]
    assert stopped == {h.trial_id for h in replay(events) if h.status == "stopped"}


def test_summary_names_the_winner_beside_the_untuned_base(finished: Finished) -> None:
    verdict = _verdict(finished)
    assert f"best: {verdict['winner']}" in finished.output
    assert f"best/ holds {verdict['adapter']}" in finished.output
    assert "untuned base" in finished.output and "mean of its 2 seeds" in finished.output
    assert "Traceback" not in finished.output


def test_winner_stands_beside_the_first_sentences_of_the_input(finished: Finished) -> None:
    splits, verdict = read_rows(finished.folder / "rows"), _verdict(finished)
    baseline = make_baseline(splits)
    metrics, _ = score_baseline(baseline, splits.test, splits.scoring)
    assert verdict["baselines"][baseline.title]["test"] == pytest.approx(metrics)
    card = (finished.folder / "best" / "README.md").read_text()
    assert f"| {baseline.title} |" in card
    for doubt in verdict["doubts"]:
        assert f"warning: {doubt}" in finished.output
    noted = json.loads((finished.folder / "sweep.json").read_text())
    assert (noted["baselines"], noted["doubts"]) == (verdict["baselines"], verdict["doubts"])
    (summary,) = [event for event in _events(finished) if event["kind"] == "summary"]
    assert summary["values"].get("doubts", "") == "; ".join(verdict["doubts"])


def test_start_points_are_tried_first(finished: Finished) -> None:
    first, second = replay(small_sweep.events_of(finished.folder))[:2]
    assert (first.params.lora_rank, first.params.lora_alpha, first.params.use_rslora) == (
        64,
        32.0,
        True,
    )
    assert (second.params.lora_rank, second.params.lora_alpha, second.params.use_rslora) == (
        16,
        32.0,
        False,
    )


def test_target_modules_are_told_by_every_file_and_adapted(finished: Finished) -> None:
    events = small_sweep.events_of(finished.folder)
    trials = replay(events)
    chosen = [",".join(trial.params.target_modules) for trial in trials]
    assert chosen[:2] == ["attention,up_proj"] * 2, "start points have the first set"
    assert set(chosen) <= {"attention,up_proj", "all"}
    with (finished.folder / "trials.csv").open() as file:
        assert [row["target_modules"] for row in csv.DictReader(file)] == chosen
    storage = f"sqlite:///{finished.folder}/optuna.db"
    study = optuna.load_study(study_name=finished.name, storage=storage)
    assert [trial.params["target_modules"] for trial in study.trials] == chosen
    layers = read_model_facts(str(MODEL_DIR)).linear_shapes
    for trial in replay_all(events):
        assert trial.last is not None
        config = json.loads((trial.last.checkpoint / "adapter_config.json").read_text())
        adapted = resolve_targets(trial.params.target_modules, layers)
        assert set(config["target_modules"]) == set(adapted)
        weights = load_file(trial.last.checkpoint / "adapter_model.safetensors")
        assert {name.split(".")[-3] for name in weights} == set(adapted)


def test_best_adapter_gives_the_score_that_its_row_claims(finished: Finished) -> None:
    config = from_json(json.loads((finished.folder / "sweep.json").read_text())["config"])
    settings = config.settings
    splits = read_rows(settings.rows_dir)
    rows = select_fixed_slice(splits.validation, settings.eval_rows)
    torch.set_num_threads(1)
    base = load_base(settings.model, settings.compute_dtype)
    model = PeftModel.from_pretrained(base, str(finished.folder / "best"))
    tokenizer = load_tokenizer(str(finished.folder / "best"))
    again = evaluate(model, tokenizer, rows, splits.scoring, settings).metrics
    kept = _verdict(finished)["adapter"]
    (history,) = [h for h in replay_all(_events(finished)) if h.trial_id == kept]
    metrics = history.reports[-1].metrics
    assert again.keys() == metrics.keys()
    loss = metrics["eval_loss"]
    assert again["eval_loss"] == pytest.approx(loss, rel=small_sweep.LOSS_TOLERANCE)
    rouge = metrics["rougeLsum"]
    assert again["rougeLsum"] == pytest.approx(rouge, abs=small_sweep.ROUGE_TOLERANCE)


def test_finals_train_each_finalist_with_two_fresh_seeds_and_the_best_mean_wins(
    finished: Finished,
) -> None:
    runs = replay_finals(_events(finished))
    assert runs and all(history.status == "completed" for history in runs)
    for history in runs:
        assert [report.step for report in history.reports] == [1, 3, 9]
        assert history.reports[-1].checkpoint.parent.name == history.trial_id
    finalists = _verdict(finished)["finalists"]
    assert len(finalists) == 2
    for one in finalists:
        assert [run["seed"] for run in one["runs"]] == [1, 2]
        assert one["mean"] == pytest.approx(sum(run["value"] for run in one["runs"]) / 2)
    assert finalists[0]["mean"] >= finalists[1]["mean"]
    assert sum(one["probability_best"] for one in finalists) == pytest.approx(1.0)
    noted = json.loads((finished.folder / "sweep.json").read_text())["finals"]
    assert noted.items() <= _verdict(finished).items()
    low, high = _verdict(finished)["interval"]
    assert low <= finalists[0]["mean"] - finalists[1]["mean"] <= high


def test_other_seed_trains_on_other_rows_from_other_weights(finished: Finished) -> None:
    histories = {h.trial_id: h for h in replay_all(_events(finished))}
    again = [h for h in histories.values() if h.final_of and h.seed != 0]
    assert again
    for history in again:
        assert history.final_of is not None
        first, searched = history.reports[0], histories[history.final_of].reports[0]
        assert history.params == histories[history.final_of].params
        assert (first.tokens, first.train_loss) != (searched.tokens, searched.train_loss)


def test_test_is_looked_at_once_for_winner_start_point_and_base(finished: Finished) -> None:
    (event,) = [event for event in _events(finished) if event["kind"] == "final_scores"]
    verdict = _verdict(finished)
    own = {run["trial_id"] for run in verdict["finalists"][0]["runs"]}
    assert event["trial_id"] == verdict["adapter"] in own <= event["runs"].keys()
    assert event["scores"]["test"] == event["runs"][verdict["adapter"]]
    met = find_last_finals(_events(finished))
    assert met is not None and met.baseline in ("t0000", "t0001")
    others = event["runs"].keys() - own
    if met.baseline == verdict["winner"]:
        assert not others
    else:
        (baseline,) = others
        assert baseline in (met.baseline, f"f{met.baseline[1:]}s0")
        assert f"test, best start point ({baseline})" in finished.output


def test_answers_to_test_are_kept_and_give_the_scores_of_the_log(finished: Finished) -> None:
    found = predictions.read(finished.folder / "best")
    events = small_sweep.events_of(finished.folder)
    (scores,) = [event["scores"] for event in events if event["kind"] == "final_scores"]
    assert len(found) > 1
    for split, rows in (
        ("test", [one.scores for one in found]),
        ("test_base", [one.base_scores for one in found]),
    ):
        mean = sum(row["rougeLsum"] for row in rows) / len(found)
        assert mean == pytest.approx(scores[split]["rougeLsum"], rel=1e-9)


def test_ended_trials_keep_their_adapter_but_no_optimizer(finished: Finished) -> None:
    histories = replay_all(_events(finished))
    assert len(histories) > finished.num_trials
    for history in histories:
        last = history.reports[-1]
        folder = finished.folder / "checkpoints" / history.trial_id / f"checkpoint-{last.step}"
        assert folder == last.checkpoint
        assert load_file(folder / "adapter_model.safetensors")
        assert not list(folder.glob("optimizer*"))
        assert (folder / "answers.jsonl").exists() == (last.step == 9)


def test_trial_alone_gives_what_it_gave_in_the_sweep(finished: Finished) -> None:
    history = replay(small_sweep.events_of(finished.folder))[0]
    params = history.params
    ended = commands.call(
        "sweeps.trial",
        "samsum",
        *small_sweep.FLAGS,
        "--data",
        str(finished.runs_dir / small_sweep.ROWS_NAME),
        "--lora-rank",
        str(params.lora_rank),
        "--lora-alpha",
        str(params.lora_alpha),
        "--lora-dropout",
        str(params.lora_dropout),
        "--use-rslora" if params.use_rslora else "--no-use-rslora",
        "--learning-rate",
        str(params.learning_rate),
        "--target-modules",
        ",".join(params.target_modules),
        "--runs-dir",
        str(finished.runs_dir),
        "--name",
        "alone",
    )
    assert ended.code == 0, ended.stderr
    losses = [float(x) for x in re.findall(r"train_loss ([\d.]+)", ended.stdout)]
    scores = [float(x) for x in re.findall(r"rougeLsum ([\d.]+)", ended.stdout)]
    num_reports = len(history.reports)
    assert losses[:num_reports] == pytest.approx(
        [r.train_loss for r in history.reports], rel=small_sweep.LOSS_TOLERANCE
    )
    assert scores[:num_reports] == pytest.approx(
        [r.metrics["rougeLsum"] for r in history.reports], abs=small_sweep.ROUGE_TOLERANCE
    )
    alone = finished.runs_dir / "alone"
    assert read_rows(alone / "rows") == read_rows(finished.folder / "rows")


def test_resuming_a_finished_sweep_runs_nothing_also_in_a_renamed_folder(
    finished: Finished,
) -> None:
    folder = finished.runs_dir / "renamed"
    shutil.copytree(finished.folder, folder)
    names = ("trials.csv", "finals.csv", "finals.json")
    before = [(folder / name).read_text() for name in names]
    code, output = small_sweep.resume(finished.runs_dir, "renamed", "--json")
    assert code == 0, output
    told = json.loads(output.splitlines()[-1])
    assert told["run"] == str(folder) and told["best"]["trial_id"] == _verdict(finished)["winner"]
    assert [(folder / name).read_text() for name in names] == before
    assert small_sweep.count(small_sweep.events_of(folder), "final_scores") == 1


def _events(finished: Finished) -> list[dict[str, Any]]:
    return small_sweep.events_of(finished.folder)


def _verdict(finished: Finished) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((finished.folder / "finals.json").read_text())
    return content


def test_csv_has_the_documented_columns(finished: Finished) -> None:
    with (finished.folder / "trials.csv").open() as file:
        names = csv.DictReader(file).fieldnames
    assert names is not None
    documented = {
        "trial_id",
        "status",
        "reason",
        "lora_rank",
        "lora_alpha",
        "lora_dropout",
        "learning_rate",
        "steps",
        "metric",
        "value",
        "gpu_seconds",
        "tokens",
        "peak_gib",
    }
    assert documented <= set(names)
