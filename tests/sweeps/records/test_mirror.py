"""A run's files on object storage: what is copied, what a resume fetches, and who may go on."""

import json
import shutil
import socket
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sweeps.records import mirror
from sweeps.records.mirror import fetch_run, mirror_run, set_unlogged_aside
from sweeps.records.paths import RunPaths
from sweeps.records.run_lock import lock_run
from sweeps.records.trial_record import TrialRecord
from tests.trainables.test_checkpoint import make_report
from trainables import storage
from trainables.checkpoint import get_checkpoint_folder, list_complete_checkpoints, write_report
from trainables.checkpoint_storage import fetch_last, publish
from trainables.config import Hyperparameters
from trainables.errors import SweepAborted

PARAMS = Hyperparameters(lora_rank=8, lora_alpha=8, learning_rate=1e-4)


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    """A run with a little in it."""
    paths = RunPaths(tmp_path / "here" / "run")
    paths.rows.mkdir(parents=True)
    (paths.rows / "train.parquet").write_text("rows")
    paths.sweep_json.write_text("{}")
    paths.events.write_text("a\n")
    for left_out in (paths.checkpoints / "t0000", paths.folder / "wandb", paths.folder / ".tmp"):
        left_out.mkdir(parents=True)
        (left_out / "file").touch()
    paths.optuna_db.touch()
    return paths


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/bucket/run"


def make_beat_elsewhere() -> bytes:
    """The heartbeat of a driver on another machine."""
    who = {"time": datetime.now(UTC).isoformat(), "host": "elsewhere", "pid": 7, "left_s": None}
    return json.dumps({**who, "num_gpus": 1, "num_packs": 1, "slots_per_gpu": 1}).encode()


def list_there(tmp_path: Path) -> set[str]:
    folder = tmp_path / "bucket" / "run"
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_files_there_are_those_here_when_the_run_is_left(
    paths: RunPaths, url: str, tmp_path: Path
) -> None:
    common = {"sweep.json", "events.jsonl", "rows/train.parquet"}
    with mirror_run(paths, url):
        assert list_there(tmp_path) == common  # before any node reads rows
        paths.heartbeat.touch()
        mirror._copy_if_ours(paths, url, copied := {})
        assert paths.heartbeat in copied and "heartbeat.json" in list_there(tmp_path)
    with mirror_run(paths, url):
        paths.heartbeat.unlink()
        paths.events.write_text("a\nb\n")
        paths.best.mkdir()
        (paths.best / "README.md").write_text("card")
    assert list_there(tmp_path) == common | {"best/README.md"}
    assert storage.read_file(f"{url}/events.jsonl") == b"a\nb\n"


@pytest.mark.parametrize("is_all", [True, False])
def test_run_that_is_deleted_here_stays_there(
    is_all: bool, paths: RunPaths, url: str, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt), mirror_run(paths, url):
        there = list_there(tmp_path)
        shutil.rmtree(paths.folder) if is_all else paths.events.unlink()
        raise KeyboardInterrupt
    assert list_there(tmp_path) == there
    fetch_run(paths, url)
    assert paths.events.read_text() == "a\n"


def test_storage_that_fails_in_the_end_is_told(
    paths: RunPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "RETRY_WAITS_S", ())
    bucket = tmp_path / "bucket"
    with pytest.raises(SweepAborted) as refused, mirror_run(paths, f"file://{bucket}/run"):
        bucket.rename(tmp_path / "gone")
        bucket.touch()
        paths.events.write_text("a\nb\n")
    assert refused.value.is_resumable
    bucket.unlink()
    with pytest.raises(KeyboardInterrupt), mirror_run(paths, f"file://{bucket}/run"):
        raise KeyboardInterrupt


def test_bare_machine_has_the_run_and_one_whose_log_is_further_keeps_its_own(
    paths: RunPaths, url: str, tmp_path: Path
) -> None:
    with mirror_run(paths, url):
        pass
    bare = RunPaths(tmp_path / "bare" / "run")
    fetch_run(bare, url)
    assert bare.events.read_text() == "a\n"
    assert (bare.rows / "train.parquet").read_text() == "rows"
    assert not bare.checkpoints.exists()
    assert bare.folder.stat().st_mode & 0o007 == 0  # the rows are not for others
    bare.events.write_text("a\nb\n")  # which had not been copied
    fetch_run(bare, url)
    assert bare.events.read_text() == "a\nb\n"
    bare.events.write_text("a\nc\nd\n")  # another machine has gone on
    paths.events.write_text("a\nb\n")
    with mirror_run(paths, url):
        pass
    fetch_run(bare, url)
    assert bare.events.read_text() == "a\nb\n"


def test_run_of_the_same_name_on_this_disk_is_not_overwritten_by_another_one(
    paths: RunPaths, url: str, tmp_path: Path
) -> None:
    paths.sweep_json.write_text('{"sweep_id": "there"}')
    with mirror_run(paths, url):
        pass
    here = RunPaths(tmp_path / "own" / "run")
    here.folder.mkdir(parents=True)
    here.sweep_json.write_text('{"sweep_id": "here"}')
    here.events.write_text("b\n")
    with pytest.raises(SweepAborted, match="another run") as refused:
        fetch_run(here, url)
    assert "--runs-dir" in refused.value.fix
    assert here.events.read_text() == "b\n" and "here" in here.sweep_json.read_text()


def test_driver_that_lives_elsewhere_is_not_followed(
    paths: RunPaths, url: str, tmp_path: Path
) -> None:
    now = datetime.now(UTC).isoformat()
    who = {"host": socket.gethostname(), "pid": 1, "left_s": None}
    beat = {"time": now, **who, "num_gpus": 1, "num_packs": 1, "slots_per_gpu": 1}
    paths.heartbeat.write_text(json.dumps(beat))
    with mirror_run(paths, url):
        pass
    other = RunPaths(tmp_path / "other" / "run")
    fetch_run(other, url)
    with (
        pytest.raises(SweepAborted, match="process 1 on"),
        lock_run(other, "sweep", is_known_by_beat=True),
    ):
        pass


def test_no_trial_goes_on_from_checkpoints_that_the_log_does_not_lead_to_and_they_are_kept(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here = tmp_path / "trials"
    for trial_id, steps in {"t0000": (1, 3), "t0001": (3, 9), "t0002": (1,), "t0003": (9,)}.items():
        for step in steps:
            report = make_report(here / trial_id, step)
            write_report(report)
            place = f"{url}/checkpoints/{trial_id}"
            publish(place, get_checkpoint_folder(here / trial_id, step), has_ended=False)
    report = make_report(tmp_path / "logged", 1)
    records = [
        TrialRecord(trial_id="t0000", number=0, params=PARAMS, reports=[report]),
        TrialRecord(trial_id="t0001", number=1, params=PARAMS),  # step 1 was never copied
        TrialRecord(trial_id="t0003", number=3, params=PARAMS, status="completed"),
    ]
    before = list_there(tmp_path)
    set_unlogged_aside(url, records, (1, 3, 9))
    set_unlogged_aside(url, records, (1, 3, 9))  # a resume may be cut off and repeated
    aside = {name for name in list_there(tmp_path) if "/unlogged-" in name}
    assert {name.split("/")[1] for name in aside} == {"t0001", "t0002"}
    assert {name.replace("unlogged-", "") for name in list_there(tmp_path)} == before
    (told,) = caplog.messages
    assert "t0001, t0002" in told and "unlogged-" in told
    for trial_id, last in {"t0000": [3], "t0001": [], "t0002": [], "t0003": [9]}.items():
        fetch_last(f"{url}/checkpoints/{trial_id}", tmp_path / "node" / trial_id)
        reports = list_complete_checkpoints(tmp_path / "node" / trial_id)
        assert [path.name for path in reports] == [f"checkpoint-{step}" for step in last]


@pytest.mark.parametrize("is_absolute", [False, True])
def test_name_that_leads_out_of_the_folder_is_refused(
    is_absolute: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "RETRY_WAITS_S", ())
    fs, root = storage.open_url("memory://outside/run")
    path = f"{root}/{tmp_path}/evil" if is_absolute else f"{root}/../evil"  # S3 takes such keys
    fs.pipe_file(path, b"")
    monkeypatch.setattr(type(fs), "find", lambda *_: [path])
    folder = tmp_path / "here"
    with pytest.raises(SweepAborted, match="leads out"):
        storage.fetch_files("memory://outside/run", folder, without="checkpoints")
    assert list(tmp_path.iterdir()) == []


def test_driver_whose_run_another_one_took_over_ends_and_overwrites_nothing(
    paths: RunPaths, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "INTERVAL_S", 0.05)
    beat = make_beat_elsewhere()
    with pytest.raises(KeyboardInterrupt), mirror_run(paths, url):
        fs, root = storage.open_url(url)
        fs.pipe_file(f"{root}/heartbeat.json", beat)
        paths.events.write_text("a\nanother end\n")
        time.sleep(10.0)
    assert storage.read_file(f"{url}/heartbeat.json") == beat


def test_driver_that_was_cut_off_asks_whose_run_it_is_before_it_writes_again(
    paths: RunPaths, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "INTERVAL_S", 0.05)
    monkeypatch.setattr(storage, "RETRY_WAITS_S", (0.05, 0.05, 0.05))
    put, was_cut = storage._put, False

    def put_once_another_goes_on(target: str, path: Path) -> None:
        nonlocal was_cut
        if not was_cut:
            was_cut = True
            fs, beat = storage.open_url(f"{url}/heartbeat.json")
            fs.pipe_file(beat, make_beat_elsewhere())
            raise OSError("the network is down")
        put(target, path)

    with pytest.raises(KeyboardInterrupt), mirror_run(paths, url):
        monkeypatch.setattr(storage, "_put", put_once_another_goes_on)
        paths.events.write_text("a\nanother end\n")
        time.sleep(10.0)
    assert was_cut and storage.read_file(f"{url}/events.jsonl") == b"a\n"
