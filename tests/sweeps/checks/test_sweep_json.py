"""A run's folder: whole from its first moment, held by one process, resumed only as it was."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from sweeps.checks import resume, run_folder
from sweeps.checks.environment import PACKAGES
from sweeps.checks.preflight import Preflight, check
from sweeps.checks.run_folder import open_run
from sweeps.config import SweepConfig, from_json, to_json
from sweeps.recipes import samsum
from sweeps.records.paths import RunPaths
from sweeps.records.run import read_record
from tests.sweeps.commands import call, start, tree, world
from trainables.errors import REPEAT, SweepAborted

pytestmark = pytest.mark.usefixtures("few_rows", "own_world")


@pytest.fixture
def config(tmp_path: Path) -> SweepConfig:
    return replace(samsum(True), name="mine", runs_dir=str(tmp_path / "runs"))


@pytest.fixture(scope="module")
def preflight() -> Preflight:
    """What preflight finds of the tiny sweep."""
    return check(replace(samsum(True), wandb="disabled"), is_resumed=False)


def begin(config: SweepConfig, preflight: Preflight) -> dict[str, Any]:
    """Opens a new run and leaves it; returns its record."""
    with open_run(config, preflight, is_resumed=False) as paths:
        return read_record(paths)


def test_record_says_what_was_asked_on_what(config: SweepConfig, preflight: Preflight) -> None:
    content = begin(config, preflight)
    assert from_json(content["config"]) == config
    assert content["config"]["seed"] == config.seed
    assert content["rows"] == preflight.splits.counts
    assert content["rows"]["train"] == len(preflight.splits.train)
    assert content["rungs"] == list(config.rungs)
    assert content["metric"]["name"] == "rougeLsum" and content["metric"]["mode"] == "max"
    assert len(content["metric"]["fingerprint"]) == 12
    assert content["versions"].keys() == set(PACKAGES)
    assert content["versions"]["torch"] != "not installed"
    assert {"cpus", "memory_gib", "gpus"} <= content["hardware"].keys()
    assert content["hardware"]["cpus"] == os.cpu_count()
    commit = content["git_commit"]
    assert commit is None or len(commit.removesuffix("+changes")) == 40
    assert content["created"].startswith("20")


def test_record_of_several_data_files_can_be_read(
    config: SweepConfig, preflight: Preflight
) -> None:
    several = replace(config, data=("a.csv", "b.csv"))
    assert begin(several, preflight)["dataset"] == list(several.data or ())


def test_two_runs_have_different_ids(config: SweepConfig, preflight: Preflight) -> None:
    other = replace(config, name="other")
    assert begin(config, preflight)["sweep_id"] != begin(other, preflight)["sweep_id"]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://user:s3cret@host:5432/optuna",
        "postgresql+psycopg://user@host/optuna?sslmode=require&sslpassword=s3cret",
        "mysql+pymysql:///optuna?user=me&passwd=s3cret",
    ],
)
def test_password_of_the_study_storage_is_not_kept(
    url: str, config: SweepConfig, preflight: Preflight, tmp_path: Path
) -> None:
    private = replace(config, study_storage=url)
    begin(private, preflight)
    with open_run(private, preflight, is_resumed=True):
        pass
    assert not any(b"s3cret" in (content or b"") for content in tree(tmp_path).values())
    saved = resume.read_saved_config(config, is_named=True)
    with pytest.raises(SweepAborted, match="needs its password") as caught:
        resume.check_resumable(saved, saved)
    assert f"--study-storage {url.replace('s3cret', 'PASSWORD')}" in caught.value.fix
    resume.check_resumable(saved, private)


WATCHER = """
import os, sys
folder = sys.argv[1]
print("ready", flush=True)
seen = 0
while seen < 30:
    for name in os.listdir(folder):
        if name.startswith("."):
            continue
        for file in ("sweep.json", "rows/train.parquet", "rows/splits.json"):
            if not os.path.isfile(os.path.join(folder, name, file)):
                sys.exit(f"{name} has no {file}")
    seen = sum(not name.startswith(".") for name in os.listdir(folder))
"""


def test_run_folder_is_never_seen_without_its_record_and_rows(
    config: SweepConfig, preflight: Preflight, tmp_path: Path
) -> None:
    (tmp_path / "runs").mkdir()
    watcher = subprocess.Popen(
        [sys.executable, "-c", WATCHER, str(tmp_path / "runs")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watcher.stdout is not None and watcher.stdout.readline() == "ready\n"
    few = replace(preflight.splits, train=preflight.splits.train[:9])
    for number in range(30):
        run_folder._create_folder(
            RunPaths.from_name(config.runs_dir, f"run{number}"), {"padding": "x" * 200_000}, few
        )
    _, complaint = watcher.communicate(timeout=60)
    assert (watcher.returncode, complaint) == (0, "")


def test_folder_that_cannot_be_made_leaves_nothing(
    config: SweepConfig, preflight: Preflight, tmp_path: Path
) -> None:
    (tmp_path / "runs" / "mine" / "taken").mkdir(parents=True)
    with pytest.raises(SweepAborted, match="cannot be made"):
        begin(config, preflight)
    assert set(tree(tmp_path)) == {"runs", "runs/mine", "runs/mine/taken"}


HOLDER = """
import sys, time
from sweeps.records.paths import RunPaths
from sweeps.records.run_lock import lock_run
with lock_run(RunPaths.from_name("runs", "mine")):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(
    config: SweepConfig, preflight: Preflight, tmp_path: Path
) -> Iterator[subprocess.Popen[str]]:
    """Another process that works on the run."""
    begin(config, preflight)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        cwd=tmp_path,
        env=world(tmp_path),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_second_process_is_refused_and_changes_nothing(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    before = tree(tmp_path)
    flags = ("samsum", "--tiny", "--name", "mine", "--resume")
    error, fix = start("sweeps.run", *flags, "--num-trials", "13", folder=tmp_path).refusal()
    assert "another process works on the run" in error
    assert "wait" in fix
    assert tree(tmp_path) == before


def test_killed_process_leaves_no_lock(
    holder: subprocess.Popen[str], config: SweepConfig, preflight: Preflight
) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with open_run(config, preflight, is_resumed=True) as paths:
        assert paths.lock.exists()


def test_mistake_found_before_the_first_trial_takes_the_new_run_away(
    config: SweepConfig, preflight: Preflight, tmp_path: Path
) -> None:
    with (
        pytest.raises(SweepAborted),
        open_run(config, preflight, is_resumed=False) as paths,
    ):
        paths.events.write_text(
            '{"time": "2026-11-29T12:00:00Z", "kind": "sweep_started", "name": "mine"}\n'
        )
        raise SweepAborted("no GPU found", "get one")
    assert set(tree(tmp_path)) == {"runs"}


STARTED = (
    '{"time": "2026-11-29T12:00:00Z", "kind": "trial_started", '
    '"trial_id": "t0000", "number": 0, "params": '
    '{"lora_rank": 8, "lora_alpha": 8.0, "lora_dropout": 0.0, "learning_rate": 0.001, '
    '"use_rslora": false, "target_modules": ["q_proj"]}}\n'
)


@pytest.mark.parametrize("events", [STARTED, "damaged\n{}\n"])
def test_mistake_after_a_trial_began_keeps_the_run(
    events: str, config: SweepConfig, preflight: Preflight
) -> None:
    with (
        pytest.raises(SweepAborted),
        open_run(config, preflight, is_resumed=False) as paths,
    ):
        paths.events.write_text(events)
        raise SweepAborted("the disk is full", "free some")
    assert paths.events.read_text() == events


def test_full_disk_before_the_first_trial_keeps_the_run_that_is_to_be_resumed(
    config: SweepConfig, preflight: Preflight
) -> None:
    with (
        pytest.raises(SweepAborted),
        open_run(config, preflight, is_resumed=False) as paths,
    ):
        raise SweepAborted("the disk is full", f"free space, {REPEAT}")
    assert paths.sweep_json.is_file()


def test_run_that_is_deleted_here_is_not_taken_away_from_the_storage(
    config: SweepConfig, preflight: Preflight, tmp_path: Path
) -> None:
    stored = replace(config, checkpoints=f"file://{tmp_path}/bucket")
    with (
        pytest.raises(SweepAborted),
        open_run(stored, preflight, is_resumed=False) as paths,
    ):
        there = tree(tmp_path / "bucket")
        shutil.rmtree(paths.folder)
        raise SweepAborted("there is no sweep", "name one")
    assert tree(tmp_path / "bucket") == there != {}


def test_resumed_run_is_kept_whatever_is_wrong(config: SweepConfig, preflight: Preflight) -> None:
    begin(config, preflight)
    with (
        pytest.raises(SweepAborted),
        open_run(config, preflight, is_resumed=True) as paths,
    ):
        raise SweepAborted("no GPU found", "get one")
    assert paths.sweep_json.is_file()


def test_saved_config_comes_back_where_the_run_lies_now(
    config: SweepConfig, preflight: Preflight, tmp_path: Path
) -> None:
    begin(config, preflight)
    (tmp_path / "moved").mkdir()
    (tmp_path / "runs" / "mine").rename(tmp_path / "moved" / "yours")
    asked = replace(samsum(True), runs_dir="moved", name="yours")
    assert resume.read_saved_config(asked, is_named=True) == replace(
        config, runs_dir="moved", name="yours"
    )


OTHER_VALUES: dict[str, Any] = {
    "task": "other",
    "model": "other/model",
    "data": "/other",
    "recipe": "other",
    "tiny": False,
    "schedule": "cosine",
    "base": "bf16",
    "compute_dtype": "float32",
    "max_new_tokens": 9,
    "eval_batch_size": 9,
    "batch_size": 16,
    "track": "wandb,tensorboard",
    "micro_batch_size": 4,
    "max_length_tokens": 99,
    "warmup_frac": 0.5,
    "weight_decay": 0.5,
    "max_grad_norm": 0.5,
    "eval_rows": 9,
    "seed": 9,
    "max_steps": 99,
    "epochs": 2.0,
    "num_rungs": 1,
    "reduction_factor": 9,
    "start_points": (),
    "num_trials": 99,
    "slots_per_gpu": 9,
    "gpus": 9,
    "max_failures": 9,
    "runs_dir": "other",
    "name": "other",
    "wandb": "disabled",
    "wandb_project": "other",
    "wandb_entity": "other",
    "study_storage": "sqlite:///other.db",
    "checkpoints": "s3://other/runs",
    "engine": "solo",
    "low_rung_eval_rows": 9,
    "time_budget": "9h",
    "gpu_hours": 9.0,
    "estimate": False,
    "thinking": True,
    "bertscore": "on",
    "bertscore_encoder": "other/encoder",
    "bertscore_layer": 1,
    "finals": False,
    "num_finalists": 9,
    "num_final_seeds": 9,
    "sampler": "random",
}


@pytest.mark.parametrize("name", [*OTHER_VALUES, "space", "task_options"])
def test_resume_may_change_how_it_runs_but_not_what_a_score_means(
    name: str, config: SweepConfig
) -> None:
    nested = {
        "space": replace(config.space, lora_ranks=(1,)),
        "task_options": replace(config.task_options, label_names=("0=no",)),
    }
    asked = replace(config, **{name: (nested | OTHER_VALUES)[name]})
    assert asked != config
    if name in resume.CHANGEABLE:
        resume.check_resumable(config, asked)
        return
    with pytest.raises(SweepAborted) as caught:
        resume.check_resumable(config, asked)
    flags = {"space": "lora-ranks", "task_options": "label-names"}
    flag = flags.get(name, name.replace("_", "-"))
    assert caught.value.error.endswith(f"these differ: --{flag}")


def test_every_field_is_changed_above() -> None:
    names = {f.name for f in fields(SweepConfig)}
    assert names - OTHER_VALUES.keys() == {"space", "task_options"}
    assert names > resume.CHANGEABLE


@pytest.mark.parametrize(
    ("flags", "error", "fix"),
    [
        ([], "needs the name", "--name with one of: mine"),
        (["--name", "none"], "there is no sweep 'none'", "--name with one of: mine"),
        (["--name", "mine", "--max-steps", "91"], "--max-steps", "leave them out"),
        (["--name", "mine", "--seed", "1", "--lora-ranks", "8"], "--seed, --lora-ranks", "leave"),
        (["--name", "mine", "--target-modules", "mlp"], "differ: --target-modules", "leave"),
        (["--name", "mine", "--runs-dir", "other"], "no sweep 'mine' in other", "begin a new"),
        (["--name", "mine", "--num-trials", "0"], "--num-trials", "--help"),
    ],
)
def test_resume_that_cannot_be_leaves_the_run_untouched(
    flags: list[str],
    error: str,
    fix: str,
    config: SweepConfig,
    preflight: Preflight,
    tmp_path: Path,
) -> None:
    begin(config, preflight)
    (tmp_path / "runs" / ".aside.0123").mkdir()
    (tmp_path / "runs" / ".aside.0123" / "sweep.json").write_text("{}")
    before = tree(tmp_path)
    refusal = call("sweeps.run", "samsum", "--tiny", "--resume", *flags).refusal()
    assert error in refusal[0]
    assert fix in refusal[1]
    assert ".aside" not in refusal[1]
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("events.jsonl", "put the file back from a copy"),
        (".lock", "make it a file that this user may write, then repeat the command"),
    ],
)
def test_resume_of_a_run_that_cannot_be_written_ends_before_ray_starts(
    name: str, fix: str, config: SweepConfig, preflight: Preflight, tmp_path: Path
) -> None:
    """A folder stands in the file's place: the bits that keep users out let root in."""
    begin(config, preflight)
    path = tmp_path / "runs" / "mine" / name
    path.unlink(missing_ok=True)
    path.mkdir()
    flags = ("--wandb", "disabled", "--resume", "--name", "mine")
    message, remedy = call("sweeps.run", "samsum", "--tiny", *flags).refusal()
    assert str(path) in message and "Is a directory" in message
    assert remedy.startswith(fix)


def _without(content: dict[str, Any], *keys: str) -> str:
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    return json.dumps(content)


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda c: "", "Expecting value"),
        (lambda c: json.dumps(c)[:-9], "Unterminated"),
        (lambda c: "[]", "cannot be read"),
        (lambda c: "null", "cannot be read"),
        (lambda c: _without(c, "config"), "it has no 'config'"),
        (lambda c: _without(c, "sweep_id"), "it has no 'sweep_id'"),
        (lambda c: _without(c, "config", "model"), "model"),
        (lambda c: json.dumps(c | {"metric": None}), "metric: "),
        (lambda c: json.dumps(c | {"metric": ["rougeLsum", "max"]}), "metric: "),
        (lambda c: json.dumps(c | {"metric": c["metric"] | {"name": None}}), "metric.name: "),
        (lambda c: json.dumps(c).replace('"max_steps": 90', '"max_steps": "x"'), "max_steps"),
        (lambda c: json.dumps(c).replace('"max_steps": 90', '"max_steps": -1'), "max_steps"),
    ],
)
def test_damaged_record_is_told_and_kept(
    damage: Any, error: str, config: SweepConfig, preflight: Preflight, tmp_path: Path
) -> None:
    content = begin(config, preflight)
    (tmp_path / "runs" / "mine" / "sweep.json").write_text(damage(content))
    before = tree(tmp_path)
    flags = ("samsum", "--tiny", "--resume", "--name", "mine")
    message, fix = call("sweeps.run", *flags).refusal()
    assert "sweep.json cannot be read" in message
    assert error in message
    assert "begin a new sweep" in fix
    assert tree(tmp_path) == before


def test_run_without_a_record_is_no_sweep(tmp_path: Path) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    flags = ("samsum", "--tiny", "--resume", "--name", "mine")
    assert call("sweeps.run", *flags).refusal()[0] == "there is no sweep 'mine' in runs"
    (tmp_path / "runs" / "mine" / "sweep.json").mkdir()  # which is not to be chosen either
    assert call("sweeps.run", *flags).refusal()[1] == "begin a new sweep"
    assert "mine" not in call("sweeps.status", "runs/mine").refusal()[1]


def test_resume_plans_the_saved_sweep(
    config: SweepConfig, preflight: Preflight, tmp_path: Path
) -> None:
    begin(replace(config, max_steps=77, num_trials=5), preflight)
    before = tree(tmp_path)
    flags = ("samsum", "--resume", "--name", "mine", "--num-trials", "6", "--dry-run")
    ended = call("sweeps.run", *flags)
    assert ended.code == 0, ended.stderr
    assert "mine: 6 trials" in ended.stdout
    assert "77 steps of 8 rows" in ended.stdout
    assert tree(tmp_path) == before


def test_resume_takes_the_flags_again_that_its_sweep_began_with(
    config: SweepConfig, preflight: Preflight
) -> None:
    begin(replace(config, max_steps=3, num_rungs=9, low_rung_eval_rows=400), preflight)
    flags = ("samsum", "--tiny", "--resume", "--name", "mine", "--dry-run")
    own = ("--max-steps=3", "--num_rungs=9", "--low-rung-eval-rows", "400", "--bertscore-layer=9")
    ended = call("sweeps.run", *flags, *own)
    assert ended.code == 0, ended.stderr
    for new in ("--bertscore-layer=3", "--num-finalists=999"):
        assert new.partition("=")[0] in call("sweeps.run", *flags, new).refusal()[0]


def test_recipe_with_a_fixed_name_resumes_by_it(
    config: SweepConfig, preflight: Preflight, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "from dataclasses import replace\nfrom sweeps.recipes import samsum\n"
        "def recipe(is_tiny):\n    return replace(samsum(is_tiny), name='mine')\n"
    )
    begin(replace(config, recipe="mine.py"), preflight)
    for flags in ([], ["--name", "mine"], ["--name=mine"]):
        ended = call("sweeps.run", "mine.py", "--tiny", "--resume", *flags, "--dry-run")
        assert ended.code == 0, ended.stderr


def test_absolute_folders_outlive_a_change_of_place(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    config = replace(samsum(True), model="model", data="data")
    assert (config.model, config.data) == (str(tmp_path / "model"), str(tmp_path / "data"))
    hub = replace(samsum(True), model="Qwen/Qwen3-0.6B", data=None)
    assert (hub.model, hub.data) == ("Qwen/Qwen3-0.6B", None)


def test_config_survives_json(config: SweepConfig) -> None:
    assert from_json(json.loads(json.dumps(to_json(config)))) == config
