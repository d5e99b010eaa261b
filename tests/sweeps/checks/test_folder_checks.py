"""What preflight finds in data and in the run's folder, before a start."""

import errno
import importlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest

from sweeps.checks import preflight
from sweeps.cli import join_lines
from sweeps.config import SweepConfig
from sweeps.recipes import samsum
from sweeps.records.events import EventLog
from sweeps.records.paths import RunPaths
from sweeps.search.storage import open_storage
from tests.sweeps.commands import TINY, call, read_by_shell, refused
from trainables import tiny
from trainables.config import Metric
from trainables.errors import SweepAborted

pytestmark = pytest.mark.usefixtures("few_rows", "own_world")

GOOD_ROW = b'{"id": "1", "dialogue": "Ann: Hi", "summary": "Hi."}\n'

DAMAGED_DATA: list[tuple[str, bytes | None, str]] = [
    ("test.jsonl", None, "no test split in"),
    ("train.jsonl", b'{"id": "1", "chat": "Ann: Hi", "summary": "x"}\n', "found id, chat, summary"),
    ("train.jsonl", b'{"id": "1", "two\\nlines": "Ann"}\n', "found id, two lines"),
    ("train.jsonl", b"", "each a row"),
    ("train.jsonl", b'{"id": "1", "dialogue": " ", "summary": "x"}\n', "has no usable row"),
    ("validation.jsonl", b'{"id": "1", "dialogue": "A", "summary": null}\n', "has no usable row"),
    ("train.jsonl", GOOD_ROW + b'{"id": "2", "dial', "cannot read"),
    ("train.jsonl", b"3\n", "each a row"),
    ("train.jsonl", GOOD_ROW.replace(b"Hi", b"H\xe9"), "cannot read"),
    ("train.csv", b"id,dialogue,summary\n1,\x81\x8d,x\n", "cannot read"),
    ("train.csv", b"", "cannot read"),
    ("train.csv", b"id,dialogue,summary\n1,a,b\n1,2,3,4,5\n", "cannot read"),
    ("train.parquet", b"PAR1 no", "cannot read"),
]


@pytest.mark.parametrize(("name", "content", "error"), DAMAGED_DATA)
def test_data_that_cannot_be_used_is_told_before_any_trial(
    name: str, content: bytes | None, error: str, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(TINY / "samsum", data)
    (data / name).with_suffix(".jsonl").unlink()
    if content is not None:
        (data / name).write_bytes(content)
    message, _ = refused(tmp_path, "--data", "data")
    assert error in message


def test_train_split_that_is_missing_is_made_of_the_others_and_told(tmp_path: Path) -> None:
    shutil.copytree(TINY / "samsum", tmp_path / "data")
    (tmp_path / "data" / "train.jsonl").unlink()
    output = call("sweeps.run", "samsum", "--tiny", "--data", "data", "--dry-run").stdout
    assert "no train split: the 384 rows of validation and test were split by" in output


@pytest.mark.parametrize("data", ["nowhere", "no\nwhere"])
def test_data_folder_that_is_not_there_is_named(data: str, tmp_path: Path) -> None:
    message, fix = refused(tmp_path, "--data", data)
    assert "does not exist" in message
    assert "--data" in fix


def test_address_of_data_is_told_as_it_was_given(tmp_path: Path) -> None:
    for url in ("https://example.org/rows.csv", "s3://bucket/data"):
        message, fix = refused(tmp_path, "--data", url)
        assert message == f"--data {url} does not exist"
        assert fix == "download it first, then name the file"


def run_folder(tmp_path: Path, name: str, *, has_record: bool = True) -> Path:
    """A run's folder, as a sweep leaves it."""
    folder = tmp_path / name
    folder.mkdir(parents=True)
    if has_record:
        (folder / "sweep.json").write_text("{}")
    return folder


HOSTILE = """it's  "my" $HOME `x` !1 \\ \x1b[2J
*?%20"""


@pytest.mark.parametrize("runs_dir", ["runs", "my runs", HOSTILE, "-dash"])
def test_taken_name_offers_a_command_that_resumes(runs_dir: str, tmp_path: Path) -> None:
    run_folder(tmp_path, f"{runs_dir}/mine")
    message, fix = refused(tmp_path, "--name", "mine", f"--runs-dir={runs_dir}")
    assert message == f"the run 'mine' exists already in {join_lines(runs_dir)}"
    words = read_by_shell(fix.partition("go on with it: ")[2])
    where = [] if runs_dir == "runs" else ["--runs-dir", runs_dir]
    where = ["--runs-dir=-dash"] if runs_dir == "-dash" else where
    resume = [
        "python",
        "-m",
        "sweeps.run",
        "samsum",
        "--tiny",
        "--name",
        "mine",
        *where,
        "--resume",
    ]
    assert words == resume
    assert "mine/sweep.json cannot be read" in call(*words[2:]).refusal()[0]


def test_home_in_a_path_is_found(tmp_path: Path) -> None:
    """As a shell leaves it in --flag=~/folder."""
    for name in ("model", "samsum"):
        shutil.copytree(TINY / name, tmp_path / name)
    flags = ("--model=~/model", "--data=~/samsum", "--runs-dir=~/runs", "--dry-run")
    shown = call("sweeps.run", "samsum", "--tiny", *flags).stdout
    assert f"{tmp_path}/model: qwen3" in shown
    assert f"{tmp_path}/runs/" in shown


@pytest.mark.parametrize("runs_dir", ["a?b%20c", "a #b", "a&b=c"])
def test_study_lies_inside_its_run_whatever_the_folder_is_called(
    runs_dir: str, tmp_path: Path
) -> None:
    paths = RunPaths.from_name(runs_dir, "mine")
    paths.folder.mkdir(parents=True)
    metric = Metric(name="loss", mode="min")
    open_storage(paths.study_url, "mine", metric, is_resumed=False)
    assert [path.name for path in paths.folder.iterdir()] == ["optuna.db"]
    assert [path.name for path in tmp_path.iterdir()] == [runs_dir]


def test_taken_name_without_a_record_offers_no_resume(tmp_path: Path) -> None:
    run_folder(tmp_path, "runs/mine", has_record=False)
    assert refused(tmp_path, "--name", "mine")[1] == "choose another --name"


def test_dangling_link_is_a_taken_name(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(tmp_path / "gone")
    assert "exists already" in refused(tmp_path, "--name", "mine")[0]


@pytest.mark.parametrize("runs_dir", ["file", "file/below/it"])
def test_runs_folder_below_a_file_is_refused(runs_dir: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    message, fix = refused(tmp_path, "--runs-dir", runs_dir)
    assert "cannot be written" in message
    assert "--runs-dir DIR" in fix


def refused_to_another_user(check: Callable[[], object], words: str) -> bool:
    """Whether a check is refused with these words.

    The command itself may not be readable for that user, so a fork asks; nor may what the check
    imports late, which is imported before.
    """
    for late in ("huggingface_hub.hf_api", "encodings.idna"):
        importlib.import_module(late)
    child = os.fork()
    if child == 0:
        try:
            os.setuid(65534)
            check()
            os._exit(1)
        except SweepAborted as caught:
            os._exit(0 if words in f"{caught.error}; {caught.fix}" else 2)
        except BaseException:
            os._exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another user takes root")
def test_runs_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o700)
    config = _tiny(runs_dir="theirs")
    assert refused_to_another_user(
        lambda: preflight.check_run_folder(config, is_resumed=False), "cannot be written"
    )


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another user takes root")
def test_log_that_another_user_may_only_read_is_not_written() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is hidden from other users
        os.chmod(folder, 0o777)
        path = Path(folder, "events.jsonl")
        path.touch(mode=0o644)
        assert refused_to_another_user(lambda: EventLog(path), "a file that this user may write")


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another user takes root")
@pytest.mark.parametrize(
    "closed",
    [
        "model",
        "model/config.json",
        "model/tokenizer.json",
        "model/model.safetensors",
        "rows",
        "rows/deeper",
        "rows/train.jsonl",
    ],
)
def test_model_or_data_that_only_another_user_may_read_is_refused(
    closed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is hidden from other users
        os.chmod(folder, 0o777)
        monkeypatch.setenv("RAY_TMPDIR", folder)
        monkeypatch.chdir(folder)
        model = shutil.copytree(tiny.MODEL_DIR, Path(folder, "model"))
        rows = shutil.copytree(tiny.SAMSUM_DIR, Path(folder, "rows"))
        rows.chmod(0o755)
        (rows / "deeper").mkdir()
        Path(folder, closed).chmod(0)
        config = _tiny(wandb="disabled", model=str(model), data=str(rows))
        check = partial(preflight.check, config, is_resumed=False)
        unread = Path(folder, closed, "adapter_config.json" if closed == "model" else "")
        fault = f"{unread} cannot be read: Permission denied; check its permissions"
        assert refused_to_another_user(check, fault)


@pytest.mark.parametrize(
    "reader",
    ["sweeps.checks.preflight.load_rows", "trainables.models.tokenizer_file._read_tokenizer"],
)
def test_data_or_model_on_a_disk_that_does_not_answer_is_not_told_as_forbidden(
    reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> NoReturn:
        raise OSError(errno.ESTALE, "Stale file handle", "/mnt/a")

    monkeypatch.setattr(reader, fail)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SweepAborted) as refused:
        preflight.check(_tiny(wandb="disabled"), is_resumed=False)
    assert refused.value.error == "/mnt/a cannot be read: Stale file handle"
    assert refused.value.fix == "mount it again"


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another user takes root")
def test_folder_for_ray_that_another_user_may_only_read_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is hidden from other users
        os.chmod(folder, 0o755)
        monkeypatch.setenv("RAY_TMPDIR", folder)
        check = partial(preflight._check_cluster, _tiny())
        assert refused_to_another_user(check, f"Ray's temporary folder {folder} cannot be made")


def test_resumed_run_needs_no_free_name(tmp_path: Path) -> None:
    run_folder(tmp_path, "runs/mine")
    preflight.check_run_folder(_tiny(name="mine"), is_resumed=True)


def _tiny(**values: object) -> SweepConfig:
    return replace(samsum(True), **values)  # type: ignore[arg-type]
