"""python -m sweeps.verify shows what a trial gives alone, and finds a record that is false."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from cluster.gpus import Gpu
from sweeps import verify
from sweeps.checks.environment import list_versions
from sweeps.cli import run_command
from sweeps.config import Engine, SweepConfig, to_json
from sweeps.recipes import samsum
from sweeps.records.events import EventLog, make_params_fields, make_report_fields, read_events
from sweeps.records.paths import RunPaths
from sweeps.records.trial_record import TrialRecord, replay_all
from tests.sweeps.small_sweep import Finished
from tests.trainables.expert_model import save_experts
from tests.trainables.prepared import prepare_rows
from trainables import tiny
from trainables.compare_engines import WEIGHTS_NAME, train_until
from trainables.config import ComputeDtype, Hyperparameters, TrialConfig
from trainables.models import delta_kernels
from trainables.tiny import HYBRID_DIR, MODEL_DIR

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("few_rows")]

PROJECT = Path(__file__).resolve().parents[2]
PLAIN = Hyperparameters(lora_rank=8, lora_alpha=16.0, learning_rate=5e-3)
TRIALS = {
    "t0000": (PLAIN, 4, "completed"),
    "t0001": (replace(PLAIN, lora_dropout=0.1), 2, "stopped"),
    "t0002": (PLAIN, 0, "failed"),
}
"""Hyperparameters, steps done and status of the trials of the run."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, few_rows: None) -> Path:
    """A run by the packed engine in float32, whose trials were really trained."""
    return make_run("packed", tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run, in another place and with another name."""
    return Path(shutil.copytree(trained, tmp_path / "elsewhere"))


def test_packed_trial_without_dropout_equals_its_solo_training(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines, content = run_verify(run, "t0000", capsys)
    assert code == 0, lines
    assert lines[-2].startswith("equal: all 6 numbers within their limits, losses within ")
    assert content["is_equal"] is True and content["seeds"] == []
    assert content["again"]["engine"] == "solo"
    assert [number["step"] for number in content["numbers"]] == [2, 2, 2, 4, 4, 4]
    limits = [n["limit"] for n in content["numbers"] if n["name"] == "rougeLsum"]
    assert limits == [50.0, 25.0]  # what one row of two, then of four, can make
    assert largest_gap(content) < 1e-5
    assert max(content["again"]["distances"].values()) < 1e-2


def test_trial_is_trained_again_over_the_base_that_the_sweep_names(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = run / "sweep.json"
    changed = record.read_text().replace('"base": "nf4"', '"base": "bf16"')
    assert changed != record.read_text()
    record.write_text(changed)
    code, _, content = run_verify(run, "t0000", capsys)
    assert code == 1 and largest_gap(content) > 1e-4


def test_trial_with_dropout_equals_a_pack_of_one_and_is_trained_no_further_than_it_came(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines, content = run_verify(run, "t0001", capsys, "--num-seeds", "2")
    assert code == 0, lines
    assert lines[-2].startswith("equal: all 3 numbers within their limits")
    assert content["again"]["engine"] == "packed" and largest_gap(content) < 1e-5
    assert [seed["dropout_seed"] for seed in content["seeds"]] == [1, 2]
    steps = [[r["step"] for r in t["reports"]] for t in (content["again"], *content["seeds"])]
    assert steps == [[2]] * 3
    low, high = sorted(seed["reports"][-1]["train_loss"] for seed in content["seeds"])
    assert low < high and any(f"{low:.6f} .. {high:.6f}" in line for line in lines)


def test_solo_trial_is_compared_with_a_pack_of_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run("solo", tmp_path / "run")
    code, lines, content = run_verify(run, "t0000", capsys)
    assert code == 0, lines
    assert content["again"]["engine"] == "packed" and largest_gap(content) < 1e-5
    code, lines, content = run_verify(run, "t0001", capsys, "--num-seeds", "2")
    assert code == 0, lines
    assert lines[-2].startswith("no verdict: TRL and a pack draw other dropout masks")


@pytest.mark.parametrize("kind", ["experts", "hybrid without kernels"])
def test_trial_of_a_model_that_packs_cannot_train_is_compared_with_itself(
    kind: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delta_kernels, "_find_version", lambda name: "")
    monkeypatch.setattr(verify, "list_visible_gpus", lambda: [Gpu("GPU-a", "NVIDIA L4", 22.5, 8.9)])
    compute_dtype: ComputeDtype
    model, compute_dtype = str(HYBRID_DIR), "bfloat16"
    if kind == "experts":
        tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
        model, compute_dtype = save_experts(tmp_path / "m", tokenizer, "qwen3_moe"), "float32"
    run = make_run("solo", tmp_path / "run", model, compute_dtype)
    code, lines, content = run_verify(run, "t0001", capsys, "--num-seeds", "2")
    assert code == 0, lines
    assert lines[-2].startswith("equal: all 3 numbers within their limits")
    assert content["again"]["engine"] == "solo" and largest_gap(content) == 0.0
    assert max(content["again"]["distances"].values()) == 0.0


def test_false_record_and_foreign_adapter_are_found(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_losses(run / "events.jsonl", "t0000", 1.01)
    own = run / "checkpoints" / "t0000" / "checkpoint-4"
    foreign = run / "checkpoints" / "t0001" / "checkpoint-2"
    shutil.copyfile(foreign / WEIGHTS_NAME, own / WEIGHTS_NAME)
    code, lines, content = run_verify(run, "t0000", capsys)
    assert code == 1
    assert lines[-2] == (
        "NOT equal: 2 of 6 numbers differ by more than their limit, first train_loss at step 2 by "
        "0.0099, limit 0.0001"
    )
    assert content["is_equal"] is False
    assert sum("9.9e-03 relative !" in line for line in lines) == 2
    assert max(content["again"]["distances"].values()) > 0.05


def number(name: str = "eval_loss", **changes: Any) -> verify.Number:
    plain: dict[str, Any] = {"recorded": 4.0, "again": 4.0, "limit": 1e-4, "seeds": []}
    return verify.Number(step=3, name=name, **(plain | changes))


@pytest.mark.parametrize(
    ("changes", "is_equal"),
    [
        ({"again": 4.0 * (1 + 9e-5)}, True),
        ({"again": 4.0 * (1 + 1.1e-4)}, False),
        ({"again": math.nan}, False),
        ({"again": 9.0, "limit": None}, True),
        ({"name": "rougeLsum", "again": 4.9, "limit": 1.0}, True),
        ({"name": "rougeLsum", "again": 5.1, "limit": 1.0}, False),
    ],
)
def test_number_is_equal_within_its_limit(changes: dict[str, Any], is_equal: bool) -> None:
    assert number(**changes).is_equal == is_equal


@pytest.mark.parametrize(
    ("metric", "scores", "limit"),
    [
        ("rougeLsum", [3.0], 3.0),
        ("mcc", [0.4], 0.03),
        ("mine", [0.4, 0.7], 0.03),
        ("mine", [40.0, 70.0], 3.0),
        ("mine", [0.04, 0.0, 1.0], 0.03),
    ],
)
def test_limit_of_a_score_is_a_share_of_its_metrics_scale(
    metric: str, scores: list[float], limit: float
) -> None:
    assert verify.find_metric_limit("bfloat16", 818, metric, scores) == pytest.approx(limit)


def test_difference_of_scores_from_0_to_1_is_shown_with_their_digits(
    capsys: pytest.CaptureFixture[str],
) -> None:
    config, again = samsum(is_tiny=True), verify.Retraining(engine="solo")
    record = TrialRecord(trial_id="t0000", number=0, params=PLAIN)
    own = number("mine", recorded=0.9123, again=0.9111, limit=0.01)
    verify._print_table(config, record, again, [own])
    assert "0.0012" in capsys.readouterr().out


def test_range_of_the_seeds_decides_nothing() -> None:
    again = verify.Retraining(engine="packed")
    outside = number(seeds=[5.0, 6.0])
    assert verify.find_faults(again, [], [outside]) == []
    inside_but_unequal = number(again=4.01, seeds=[3.0, 5.0])
    (fault,) = verify.find_faults(again, [], [outside, inside_but_unequal])
    assert fault.startswith("1 of 2 numbers differ by more than their limit")


def test_training_that_failed_is_the_verdict() -> None:
    failed = verify.Retraining(engine="solo", dropout_seed=1, failed="non-finite loss at step 2")
    faults = verify.find_faults(verify.Retraining(engine="packed"), [failed], [number()])
    assert faults == ["solo, dropout seed 1 failed: non-finite loss at step 2"]


def test_other_versions_are_noted(run: Path) -> None:
    saved = {**list_versions(), "torch": "1.0"}
    record = json.loads((run / "sweep.json").read_text()) | {"versions": saved}
    (run / "sweep.json").write_text(json.dumps(record))
    (note,) = verify.find_other_versions(RunPaths(run))
    assert note.startswith("note: torch is ") and note.endswith("was 1.0 in the sweep")


def test_weights_can_be_left_out(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "checkpoints")
    assert call(str(run), "t0000", "--no-weights", "--json") == 0
    out, err = capsys.readouterr()
    content = json.loads(out)
    assert "weights: not compared" in err.splitlines()
    assert content["again"]["distances"] is None
    path = Path(content.pop("file"))
    assert content == json.loads(path.read_text())


@pytest.mark.parametrize(
    ("words", "error", "fix"),
    [
        (["nowhere", "t0000"], "there is no sweep in ", "/elsewhere"),
        (["elsewhere", "t7"], "there is no trial 't7'", "t0000, t0001"),
        (["elsewhere", "t0002"], "t0002 has reported nothing (failed: why)", "has reported"),
        (["elsewhere", "t0000"], "adapter is missing: ", "--no-weights"),
        (["elsewhere", "t0000", "--num-seeds", "1"], "--num-seeds is 1", "--help"),
        (["elsewhere"], "TRIAL", "--help"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(
    words: list[str], error: str, fix: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(run / "checkpoints")
    code = call(str(run.parent / words[0]), *words[1:])
    told = capsys.readouterr()
    assert (code, told.out) == (2, "")
    first, second = told.err.splitlines()
    assert first.startswith("error: ") and error in first
    assert second.startswith("fix: ") and fix in second


def test_damaged_sweep_json_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "sweep.json").write_text("{}")
    assert call(str(run), "t0000") == 2
    assert f"{run}/sweep.json cannot be read" in capsys.readouterr().err


def test_trials_of_a_whole_sweep_are_what_they_give_alone(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(finished.folder, tmp_path / "copy"))
    records = replay_all(read_events(folder / "events.jsonl"))
    plain = next(record for record in records if not record.params.lora_dropout)
    with_dropout = [record for record in records if record.params.lora_dropout]
    with_another_seed = max(with_dropout, key=lambda record: record.seed or 0)
    for record in (plain, with_another_seed):
        code, lines, content = run_verify(folder, record.trial_id, capsys, "--num-seeds", "2")
        assert code == 0, "\n".join(lines)
        assert content["again"]["reports"][-1]["step"] == record.reports[-1].step


def run_verify(
    run: Path, trial_id: str, capsys: pytest.CaptureFixture[str], *flags: str
) -> tuple[int, list[str], dict[str, Any]]:
    """The exit code, printed lines and JSON of the command."""
    code, path = call(str(run), trial_id, *flags), run / f"verify-{trial_id}.json"
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"numbers: {path}"
    return code, lines, json.loads(path.read_text())


def call(*words: str) -> int:
    """The command in this process."""
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: verify.main(list(words)), argv=words)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def largest_gap(content: dict[str, Any]) -> float:
    """The largest relative difference of the losses."""
    losses = ("train_loss", "eval_loss")
    gaps = [number["difference"] for number in content["numbers"] if number["name"] in losses]
    assert gaps
    return float(max(gaps))


def change_losses(path: Path, trial_id: str, factor: float) -> None:
    """Multiply the recorded training losses of a trial."""
    events = read_events(path)
    reports = [e for e in events if e["kind"] == "report" and e["trial_id"] == trial_id]
    assert reports
    for event in reports:
        event["train_loss"] *= factor
    path.write_text("".join(json.dumps(event) + "\n" for event in events))


def make_run(
    engine: Engine,
    folder: Path,
    model: str = str(MODEL_DIR),
    compute_dtype: ComputeDtype = "float32",
) -> Path:
    """What a sweep of this engine would have written of TRIALS."""
    config = replace(
        samsum(is_tiny=True),
        runs_dir=str(folder.parent),
        name=folder.name,
        engine=engine,
        model=model,
        max_steps=4,
        num_rungs=2,
        reduction_factor=2,
        batch_size=2,
        micro_batch_size=2,
        max_length_tokens=96,
        eval_rows=4,
        low_rung_eval_rows=2,
        eval_batch_size=4,
        max_new_tokens=4,
        compute_dtype=compute_dtype,
    )
    prepare_rows(folder, tiny.SAMSUM_DIR)
    log = EventLog(folder / "events.jsonl")
    for number, trial_id in enumerate(TRIALS):
        _train(config, folder, log, number, trial_id)
    content = {"config": to_json(config), "sweep_id": "id", "name": "run", "digests": {}}
    content |= {"metric": {"name": "rougeLsum", "mode": "max"}}
    (folder / "sweep.json").write_text(json.dumps(content))
    return folder


def _train(config: SweepConfig, folder: Path, log: EventLog, number: int, trial_id: str) -> None:
    params, last_step, status = TRIALS[trial_id]
    log.append("trial_started", trial_id=trial_id, number=number, params=make_params_fields(params))
    trial = TrialConfig(
        trial_id=trial_id,
        params=params,
        settings=config.settings,
        folder=folder / "checkpoints" / trial_id,
    )
    for report in train_until(config.engine, trial, last_step) if last_step else ():
        log.append("report", **make_report_fields(report))
    reason = "" if last_step else "why"
    log.append("trial_ended", trial_id=trial_id, status=status, reason=reason)
