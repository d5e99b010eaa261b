"""A resume is refused where rows or model have changed, and goes on where they are only gone."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sweeps.checks.preflight import check
from sweeps.checks.run_folder import open_run
from sweeps.config import SweepConfig
from sweeps.recipes import table
from tests.sweeps.commands import call, tree
from trainables.config import TaskOptions
from trainables.tiny import MODEL_DIR

pytestmark = pytest.mark.usefixtures("few_rows", "own_world")

FLAGS = ("table", "--tiny", "--runs-dir", "runs", "--name", "r1", "--resume", "--dry-run")


@pytest.fixture
def config(tmp_path: Path) -> SweepConfig:
    """A run of own rows on an own model, which has begun."""
    write_data(range(120))
    shutil.copytree(MODEL_DIR, "model")
    config = replace(
        table(True),
        data="m.csv",
        model="model",
        name="r1",
        wandb="disabled",
        task_options=TaskOptions(input="text", target="mood", kind="classify"),
    )
    with open_run(config, check(config, is_resumed=False), is_resumed=False):
        pass
    return config


def write_data(numbers: range, moods: tuple[str, ...] = ("good", "bad")) -> None:
    lines = [f"This is the text number {n},{moods[n % len(moods)]}" for n in numbers]
    Path("m.csv").write_text("\n".join(["text,mood", *lines]) + "\n")


def refusal(folder: Path) -> tuple[str, str]:
    """The resume's error and fix, once it has changed nothing."""
    before = tree(folder)
    error_and_fix = call("sweeps.run", *FLAGS).refusal()
    assert tree(folder) == before
    return error_and_fix


def check_resumes(num_rows: int = 120) -> None:
    ended = call("sweeps.run", *FLAGS)
    assert ended.code == 0, ended.stderr
    assert f"m.csv: {num_rows} rows" in ended.stdout


def test_unchanged_run_is_resumed(config: SweepConfig) -> None:
    check_resumes()
    Path("m.csv").write_text(Path("m.csv").read_text().replace("\n", "\r\n"))
    check_resumes()  # other bytes, the same rows


def test_storage_that_does_not_answer_is_told_before_anything_is_read_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ["--resume", "--name", "night", "--checkpoints", "file:///proc/x"]
    error, fix = call("sweeps.run", "samsum", "--tiny", *flags).refusal()
    assert "file:///proc/x/night cannot be written" in error
    assert "name a folder that can be written" in fix


def test_fewer_rows_are_refused_with_their_numbers(config: SweepConfig, tmp_path: Path) -> None:
    write_data(range(60))
    error, fix = refusal(tmp_path)
    assert "m.csv does not give the rows that this sweep began with" in error
    assert "train (80 rows before, 36 now)" in error
    assert "validation (20 rows before, 12 now)" in error
    assert "put it back" in fix and str(tmp_path / "runs" / "r1" / "rows") in fix
    assert "another --name" in fix


def test_a_record_that_has_lost_its_digests_is_told(config: SweepConfig, tmp_path: Path) -> None:
    path = tmp_path / "runs" / "r1" / "sweep.json"
    whole = json.loads(path.read_text())
    for digests in ({}, {"rows": {}}, whole["digests"] | {"model": {}}):
        path.write_text(json.dumps(whole | {"digests": digests}))
        error, fix = refusal(tmp_path)
        assert "sweep.json has lost the digests of" in error and "restore it" in fix


def test_as_many_rows_of_other_labels_are_refused(config: SweepConfig, tmp_path: Path) -> None:
    write_data(range(120), moods=("bad", "good"))
    error, _ = refusal(tmp_path)
    assert "train (80 rows before, 80 now)" in error


def test_data_that_can_no_longer_be_read_is_refused_with_its_reason(
    config: SweepConfig, tmp_path: Path
) -> None:
    Path("m.csv").write_text("words,mood\na,b\n")
    error, fix = refusal(tmp_path)
    assert "m.csv does not give the rows" in error and "no column 'text'" in error
    assert "put it back" in fix


def test_rows_that_were_left_out_for_their_length_are_no_change(config: SweepConfig) -> None:
    write_data(range(120))
    with Path("m.csv").open("a") as file:
        file.writelines(f"A long target has number {n},{'good ' * 300}\n" for n in range(9))
    shutil.rmtree("runs")
    options = replace(config.task_options, kind="generate")
    begun = replace(config, max_length_tokens=64, task_options=options)
    found = check(begun, is_resumed=False)
    assert found.splits.counts["train too long"] > 0
    with open_run(begun, found, is_resumed=False):
        pass
    check_resumes(129)


def test_data_that_is_gone_is_no_matter(config: SweepConfig) -> None:
    Path("m.csv").unlink()
    check_resumes()


def test_rows_of_the_run_that_were_changed_are_refused(config: SweepConfig, tmp_path: Path) -> None:
    rows = tmp_path / "runs" / "r1" / "rows"
    shutil.copy(rows / "test.parquet", rows / "validation.parquet")
    error, fix = refusal(tmp_path)
    assert "validation (20 rows before, 20 now)" in error and "train" not in error
    assert str(rows) in error and "as the sweep wrote it" in fix
    shutil.rmtree(rows)
    assert str(rows) in refusal(tmp_path)[0]


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_changed_model_is_refused_with_its_file(
    name: str, config: SweepConfig, tmp_path: Path
) -> None:
    path = tmp_path / "model" / name
    if name == "model.safetensors":
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    else:
        path.write_text(path.read_text() + " ")
    error, fix = refusal(tmp_path)
    assert f"the model {tmp_path / 'model'} is not what it was" in error
    assert error.endswith(f"other contents: {name}")
    assert "put its files back" in fix


def test_files_beside_the_model_are_no_matter(config: SweepConfig, tmp_path: Path) -> None:
    (tmp_path / "model" / "README.md").write_text("changed")
    (tmp_path / "model" / "adapter_model.safetensors").write_text("changed")
    check_resumes()


@pytest.mark.parametrize("left", ["checkpoints/t0000", "optuna.db"])
@pytest.mark.parametrize("is_emptied", [True, False])
def test_log_that_was_emptied_is_no_new_sweep(
    left: str, is_emptied: bool, config: SweepConfig, tmp_path: Path
) -> None:
    (tmp_path / "runs" / "r1" / left).mkdir(parents=True)
    if is_emptied:  # else it was deleted
        (tmp_path / "runs" / "r1" / "events.jsonl").touch()
    error, fix = refusal(tmp_path)
    assert "events.jsonl tells of no trial" in error and "from a copy" in fix


def test_log_that_storage_has_lost_is_no_new_sweep(config: SweepConfig, tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    shutil.move(tmp_path / "runs" / "r1", bucket / "r1")
    (bucket / "r1" / "checkpoints" / "t0000" / "checkpoint-1-0123abcd").mkdir(parents=True)
    error, fix = call("sweeps.run", *FLAGS, "--checkpoints", f"file://{bucket}").refusal()
    assert "events.jsonl tells of no trial" in error and "from a copy" in fix


def test_resume_by_another_recipe_is_refused(config: SweepConfig, tmp_path: Path) -> None:
    before = tree(tmp_path)
    error, fix = call("sweeps.run", "samsum", *FLAGS[1:]).refusal()
    assert error == "the sweep 'r1' is of the recipe table, not of samsum"
    assert fix == "python -m sweeps.run table --tiny --name r1 --resume"
    assert tree(tmp_path) == before


def test_rows_of_a_run_are_read_by_its_user_and_group(config: SweepConfig, tmp_path: Path) -> None:
    umask = os.umask(0o022)
    os.umask(umask)
    assert (tmp_path / "runs" / "r1").stat().st_mode & 0o777 == 0o770 & ~umask


def test_record_has_the_digests_of_rows_and_model(config: SweepConfig, tmp_path: Path) -> None:
    content = json.loads((tmp_path / "runs" / "r1" / "sweep.json").read_text())
    rows = content["digests"]["rows"]
    assert {name: facts["num"] for name, facts in rows.items()} == {
        "train": 80,
        "validation": 20,
        "test": 20,
    }
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= set(
        content["digests"]["model"]
    )
